"""`lavi generate` writes into each PNG what drew it, and draws as it is asked."""

import os
import signal
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.cli.generate import PictureWriter
from lavibridge.cli.main import app
from lavibridge.core.errors import RecipeError
from lavibridge.generation.nonfinite_images import NonfiniteImageError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bridge")
    toy = {"source": "random"}
    Bridge.compose({"kind": "t5", **toy}, {"kind": "pixart", **toy}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        ("--steps 2", {"num_inference_steps": "2"}),
        ("--quality fast", {"num_inference_steps": "12", "quality": "fast", "guidance_interval": "0.0 0.5"}),
        ("--steps 2 --guidance-interval 0 0.6", {"num_inference_steps": "2", "guidance_interval": "0.0 0.6"}),
        ("--steps 2 --step-cache 0.1", {"num_inference_steps": "2", "step_cache": "0.1"}),
    ],
)
def test_a_picture_says_how_it_was_drawn(
    saved: Path, tmp_path: Path, asked: str, more: dict[str, str]
) -> None:
    app(
        ["generate", str(saved), "a cat", "--out", str(tmp_path), "--guidance", "3", *asked.split()],
        standalone_mode=False,
    )
    with Image.open(tmp_path / "0001-a-cat-seed0.png") as picture:
        told = picture.text  # type: ignore[attr-defined]
    assert told == {"prompt": "a cat", "seed": "0", "guidance_scale": "3.0", **more}


def test_what_is_drawn_when_ctrl_c_comes_is_kept_and_said(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of pytest-xdist ignore it

    def stop() -> None:
        while not list(tmp_path.glob("0002-*.png")):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=stop, daemon=True).start()
    code = app(
        [
            "generate",
            str(saved),
            "\u00e9",
            "--count",
            "400",
            "--batch-size",
            "2",
            "--steps",
            "2",
            "--out",
            str(tmp_path),
        ],
        standalone_mode=False,
    )
    signal.signal(signal.SIGINT, before)
    assert code == 130
    written = sorted(str(path) for path in tmp_path.iterdir())
    assert 2 <= len(written) < 400
    found = capsys.readouterr()
    assert found.out.splitlines() == written
    assert f"wrote {len(written)} of 400 images to" in " ".join(found.err.split())
    seeds = [int(path.rpartition("seed")[2].removesuffix(".png")) for path in written]
    assert seeds == list(range(len(written)))
    for path in written:
        with Image.open(path) as picture:
            picture.load()


@pytest.mark.parametrize(
    ("asked", "said"),
    [("--quality fats", "did you mean 'fast'"), ("--step-cache 2", "above 0 and below 1")],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path: Path, asked: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        app(["generate", str(tmp_path), "a cat", *asked.split()], standalone_mode=False)


@pytest.mark.parametrize(
    ("prompt", "more", "same_as"),
    [
        ("a (red:3) cat", (), ("a (red:3) cat", True)),
        ("a (red:3) cat", ("--no-prompt-weighting",), ("a (red:3) cat", False)),
        ("a clock (showing 10:30)", (), ("a clock (showing 10:30)", False)),
    ],
)
def test_what_is_typed_to_draw_with_may_hold_weights(
    saved: Path, tmp_path: Path, prompt: str, more: tuple[str, ...], same_as: tuple[str, bool]
) -> None:
    app(
        ["generate", str(saved), prompt, "--out", str(tmp_path), "--steps", "2", *more], standalone_mode=False
    )
    (path,) = tmp_path.glob("*.png")
    (expected,) = BridgePipeline.from_pretrained(saved)(
        same_as[0], num_inference_steps=2, seed=0, prompt_weighting=same_as[1]
    ).images
    with Image.open(path) as picture:
        assert picture.tobytes() == expected.tobytes()
        assert picture.text.get("prompt_weighting") == ("off" if more else None)  # type: ignore[attr-defined]


def test_a_file_is_no_prompt(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a cat\n")
    with pytest.raises(RecipeError, match=r"'prompts.txt' is the name of a file.*--prompts prompts.txt"):
        app(["generate", str(saved), "a dog", "prompts.txt"], standalone_mode=False)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_finished_pictures_are_written_before_one_that_is_not_finite_ends_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge = Bridge.compose(
        {"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"}, "linear", None, None
    )
    tokenizer, embeddings = bridge.language.tokenizer, bridge.language.backbone.get_input_embeddings()
    (token,) = set(tokenizer("z")["input_ids"]) - set(tokenizer("a")["input_ids"])
    embeddings.weight.data[token] = float("nan")
    drawn: list[int] = []
    requested = [{"prompt": prompt, "seed": "0"} for prompt in ("a cat", "a zoo", "a boat")]
    writer = PictureWriter(tmp_path, requested, {})

    def write(number: int, picture: Image.Image) -> None:
        drawn.append(number)
        writer.write(number, picture)

    with pytest.raises(NonfiniteImageError, match="number 2"), writer:
        BridgePipeline(bridge)(
            ["a cat", "a zoo", "a boat"], num_inference_steps=1, seed=0, callback_on_image=write
        )
    assert drawn == [0, 2]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "0001-a-cat-seed0.png",
        "0002-a-boat-seed0.png",
    ]
    assert "wrote 2 of 3 images" in " ".join(capsys.readouterr().err.split())


LINES = """\
{"prompt": "a cat", "seed": 7}

{"prompt": "a dog", "negative_prompt": "a cat", "height": 32, "width": 64, "guidance_scale": 2.0}
{"prompt": "a boat"}
"""


def test_a_file_of_prompts_is_drawn_in_order_with_the_settings_of_each_line(
    saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text(LINES)
    asked = "--negative-prompt blue --size 32x32 --guidance 3 --seed 4 --count 2 --steps 2"
    grid = tmp_path / "grid.png"
    app(
        [
            *("generate", str(saved), "--prompts", str(tmp_path / "prompts.jsonl"), *asked.split()),
            *("--out", str(tmp_path / "out"), "--grid", str(grid)),
        ],
        standalone_mode=False,
    )
    expected = [
        ("a cat", "blue", 7, (32, 32), 3.0),
        ("a cat", "blue", 8, (32, 32), 3.0),
        ("a dog", "a cat", 4, (64, 32), 2.0),
        ("a dog", "a cat", 5, (64, 32), 2.0),
        ("a boat", "blue", 4, (32, 32), 3.0),
        ("a boat", "blue", 5, (32, 32), 3.0),
    ]
    written = sorted((tmp_path / "out").glob("*.png"))
    assert len(written) == len(expected)
    pipe = BridgePipeline.from_pretrained(saved)
    for path, (prompt, negative, seed, size, scale) in zip(written, expected, strict=True):
        with Image.open(path) as picture:
            assert picture.size == size
            assert picture.text == {  # type: ignore[attr-defined]
                "prompt": prompt,
                "negative_prompt": negative,
                "seed": str(seed),
                "num_inference_steps": "2",
                "guidance_scale": str(scale),
            }
            (alone,) = pipe(
                prompt,
                negative,
                num_inference_steps=2,
                guidance_scale=scale,
                width=size[0],
                height=size[1],
                seed=seed,
            ).images
            difference = np.abs(np.asarray(picture, int) - np.asarray(alone, int))
            assert difference.max() <= 1, "a batch changes rounding only"
    with Image.open(grid) as sheet:
        assert sheet.height > 3 * 64


def test_each_line_of_a_text_file_is_a_prompt(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("\ufeffa cat\r\n\n  a dog, brown \n".encode())
    out = tmp_path / "out"
    app(
        ["generate", str(saved), "--prompts", str(tmp_path / "prompts.txt"), "--steps", "1", "-o", str(out)],
        standalone_mode=False,
    )
    assert [path.name for path in sorted(out.iterdir())] == [
        "0001-a-cat-seed0.png",
        "0002-a-dog-brown-seed0.png",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\n \n", "a.txt has no prompt"),
        ("a.txt", b"\xff\xfe", "not a text file in UTF-8"),
        ("b.txt", None, "b.txt does not exist"),
        ("a.jsonl", b'{"prompt": "a cat"}\n{"prompt": ', "a.jsonl, line 2 is not valid JSON"),
        ("a.jsonl", b'["a cat"]', r"a.jsonl, line 1: should hold an object"),
        ("a.jsonl", b'{"promt": "a cat"}', "a.jsonl, line 1.promt: unknown key"),
        ("a.jsonl", b'{"prompt": "a cat", "seed": -1}', "line 1.seed: .*greater than or equal to 0"),
        ("a.jsonl", b'{"prompt": "a cat", "guidance_scale": NaN}', "line 1.guidance_scale: .*finite"),
    ],
)
def test_a_bad_file_of_prompts_is_refused_before_anything_is_loaded(
    name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=said):
        app(["generate", str(tmp_path), "--prompts", str(tmp_path / name)], standalone_mode=False)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["a cat", "--prompts", "prompts.txt"], "give one of these: prompts"),
        ([], "give one of these: prompts"),
        (["a cat", "--size", "768"], "--size: write it as WIDTHxHEIGHT in pixels"),
        (["a cat", "--size", "64x64x64"], "--size: write it as WIDTHxHEIGHT in pixels"),
        (["a cat", "--grid", "sheet.jpg"], "--grid: name a file that ends in .png"),
        (["a cat", "--grid", "nowhere/sheet.png"], "--grid: the folder nowhere does not exist"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_loaded(
    asked: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        app(["generate", str(tmp_path), *asked], standalone_mode=False)
