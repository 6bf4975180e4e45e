"""A frozen language model leaves memory once its features are cached, and comes back with the same bits."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.errors import ModelError
from lavibridge.language.base import LanguageModel
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.alignment.aligner import Aligner
from lavibridge.training.cache.backend import MemoryBackend
from lavibridge.training.cache.features import Features
from lavibridge.training.cache.unloading import Unloader
from lavibridge.training.train import train

Toy = Callable[..., Recipe]
PROMPTS = ("a red circle", "", "two blue squares")
Losses = tuple[list[float], list[float]]
NOTE = "the language model leaves memory"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 blocks in a folder."""
    found = tmp_path_factory.mktemp("bert")
    model: Any = model_of_choice("language", {"kind": "bert", "source": "random"})
    model.backbone.save_pretrained(found)
    model.tokenizer.save_pretrained(found)
    return found


def assert_unloaded(model: LanguageModel) -> None:
    """No weight has more than one element in memory."""
    assert model.unloaded_identity is not None
    assert all(weight.untyped_storage().nbytes() <= 8 for weight in model.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "llama", "source": "random"},
        {"kind": "t5", "source": "random", "dtype": "bfloat16"},
        {
            "kind": "pair",
            "source": "random",
            "of": "llama",
            "passthrough": {"kind": "clip", "source": "random"},
        },
        {"kind": "llama", "source": "random", "quantize": "8bit"},
        {"kind": "llama", "source": "random", "quantize": "4bit"},
        {},
    ],
    ids=lambda options: "-".join(str(options.get(name, "")) for name in ("kind", "dtype", "quantize")),
)
def test_a_prompt_loads_the_same_weights_again(options: Mapping[str, Any], folder: Path) -> None:
    if options.get("quantize") is not None and find_spec("bitsandbytes") is None:
        pytest.skip("needs the extra `quantize`")
    model: Any = model_of_choice("language", options or {"source": str(folder)})
    weights = dict(model.named_parameters())
    shapes = {name: (weight.shape, weight.dtype) for name, weight in weights.items()}
    size = sum(weight.nbytes for weight in weights.values())
    expected = model.encode(PROMPTS)
    for _ in range(2):
        assert model.unload() == size
        assert model.unload() == 0
        assert_unloaded(model)
        assert {name: (each.shape, each.dtype) for name, each in model.named_parameters()} == shapes
        assert model.count_tokens(PROMPTS)[0][0] > 0
        found = model.encode(PROMPTS)
        assert model.unloaded_identity is None
        assert torch.equal(found.hidden, expected.hidden)
        assert found.pooled is None or torch.equal(found.pooled, expected.pooled)
    if options.get("quantize") is None:
        assert all(weight is weights[name] for name, weight in model.named_parameters())
    model.unload()
    (_, first), *_ = model.encode_many(PROMPTS)
    assert first.hidden.isfinite().all()


def test_what_the_source_does_not_hold_is_not_unloaded() -> None:
    small = ({"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"})
    bridge = Bridge.compose(*small, "linear", language_lora={"rank": 2}, vision_lora=None)
    with pytest.raises(ModelError, match="which has LoRA"):
        bridge.language.unload()
    assert bridge.language.unloaded_identity is None


def test_another_model_in_its_place_is_refused(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "model"))
    model: Any = model_of_choice("language", str(place))
    model.unload()
    other = transformers.BertModel(model.backbone.config)
    other.save_pretrained(place)
    with pytest.raises(ModelError, match="has changed since its weights were unloaded"):
        model.encode(PROMPTS)
    shutil.rmtree(place)
    with pytest.raises(ModelError, match=str(place)):
        model.encode(PROMPTS)
    shutil.copytree(folder, place)
    assert torch.equal(
        model.encode(PROMPTS).hidden, model_of_choice("language", str(folder)).encode(PROMPTS).hidden
    )


def test_it_is_unloaded_when_the_last_caption_is_cached(folder: Path) -> None:
    bridge = Bridge.compose(str(folder), {"kind": "sd", "source": "random"}, "lavi", None, None)
    features = Features(bridge.language, bridge.connector.reading, MemoryBackend(1.0), b"")
    unload = Unloader(features, iter([*PROMPTS, *PROMPTS]))
    expected = []
    for prompt in reversed(PROMPTS):
        assert unload() == 0
        expected.append(features.one(prompt))
    assert unload() > 0
    assert_unloaded(bridge.language)
    assert features.one(PROMPTS[0])["hidden"].isfinite().all()
    assert_unloaded(bridge.language)
    features.backend.close()  # as if entries were damaged
    assert torch.equal(features.one(PROMPTS[-1])["hidden"], expected[0]["hidden"])
    assert unload() > 0


def test_without_room_for_all_captions_it_stays(folder: Path) -> None:
    bridge = Bridge.compose(str(folder), {"kind": "sd", "source": "random"}, "lavi", None, None)
    features = Features(bridge.language, bridge.connector.reading, MemoryBackend(1e-9), b"")
    unload = Unloader(features, iter(PROMPTS))
    for prompt in PROMPTS:
        features.one(prompt)
    assert unload() == 0
    assert bridge.language.unloaded_identity is None


def run(toy: Toy, out: Path, folder: Path, resume: bool = False, **training: Any) -> Losses:
    """Losses of training, and of validation."""
    recipe = toy(
        language={"kind": "bert", "source": str(folder)},
        lora={"language": None, "vision": {"rank": 4}},
        data={"scenes": 7},
        training={
            "ema": None,
            "steps": 6,
            "preview_every": 6,
            "validation": {"every": 3, "share": 0.4, "pictures": 2, "times": 1},
            "caption_dropout": 0.2,
            **training,
        },
        preview={"steps": 1},
    )
    log = (train(recipe, out, resume=resume) / "log.jsonl").read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    trained = [row["loss"] for row in rows if "loss" in row]
    return trained, [row["validation"]["loss"] for row in rows if "validation" in row]


@pytest.fixture(scope="module")
def resident(toy: Toy, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Losses]:
    """A run whose language model stays in memory, and its losses."""
    out = tmp_path_factory.mktemp("resident")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LanguageModel, "unload", lambda self: 0)
        return out, run(toy, out, folder, feature_cache_gb=1.0)


def test_a_run_without_it_is_equal_over_a_break_too(
    toy: Toy,
    folder: Path,
    tmp_path: Path,
    resident: tuple[Path, Losses],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache, out = {"folder": tmp_path / "cache"}, tmp_path / "run"
    run(toy, out, folder, cache=cache, steps=3)
    assert run(toy, out, folder, resume=True, cache=cache) == resident[1]
    assert NOTE in capsys.readouterr().err
    pictures = [(place / "samples/step-6.png").read_bytes() for place in (resident[0], out)]
    assert pictures[0] == pictures[1]
    assert Bridge.from_pretrained(out).language.unloaded_identity is None


def test_a_run_whose_language_model_is_gone_saves_its_steps(
    toy: Toy, folder: Path, tmp_path: Path, resident: tuple[Path, Losses], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "model"))
    unload = LanguageModel.unload

    def lost(self: LanguageModel) -> int:
        freed = unload(self)
        shutil.rmtree(place, ignore_errors=True)
        return freed

    with monkeypatch.context() as patched:
        patched.setattr(LanguageModel, "unload", lost)
        with pytest.raises(ModelError, match=str(place)):
            run(toy, tmp_path / "run", place, feature_cache_gb=1.0)
    (saved,) = (tmp_path / "run/checkpoints").iterdir()
    assert saved.name in ("step-3", "step-6")
    shutil.copytree(folder, place)
    assert run(toy, tmp_path / "run", place, resume=True, feature_cache_gb=1.0)[0] == resident[1][0]


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
def test_text_sides_leave_memory_before_the_first_step_of_an_alignment(
    toy: Toy, own_encoder: dict[str, str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    step = Aligner.step

    def watched(self: Aligner, number: int, rate: float) -> tuple[float, float]:
        taken = step(self, number, rate)
        sides = (self.bridge.language, self.teacher.language)
        found.append([side.unloaded_identity is not None for side in sides])
        return taken

    monkeypatch.setattr(Aligner, "step", watched)
    align = {"steps": 2, "batch": 2, "noised_latents": 2, "captions": 4, "held_out": 2}
    recipe = toy(
        language={"kind": "bert", "source": str(folder)},
        vision=own_encoder,
        lora={"language": None, "vision": None},
        training={"steps": 1, "align": align},
    )
    train(recipe, tmp_path / "all")
    assert found == [[True, True]] * 2


PROGRAM = """
import json, sys
from pathlib import Path
from lavibridge.language.base import LanguageModel
from lavibridge.recipes.recipe import make_recipe
from lavibridge.training import session
from lavibridge.training.train import train

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

settings, folder, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
train(make_recipe(settings), out / "warm")
found, begun = [], resident()
event = session.Session.unload_language_model
def watched(self):
    before = resident()
    event(self)
    found.append((before - begun, resident() - begun))
session.Session.unload_language_model = watched
language = {"kind": "bert", "source": folder, "dtype": "bfloat16"}
train(make_recipe({**settings, "language": language}), out / "run")
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_weights_are_no_longer_resident(tmp_path: Path) -> None:
    model: Any = model_of_choice("language", {"kind": "bert", "source": "random"})
    config = type(model.backbone.config)(
        **{
            **model.backbone.config.to_dict(),
            "hidden_size": 512,
            "intermediate_size": 4096,
            "num_hidden_layers": 5,
        }
    )
    large = transformers.BertModel(config, add_pooling_layer=False)
    large.save_pretrained(tmp_path / "large")
    model.tokenizer.save_pretrained(tmp_path / "large")
    size = 2 * sum(weight.numel() for weight in large.parameters())
    settings: dict[str, Any] = {
        "language": {"kind": "bert", "source": "random"},
        "vision": {"kind": "sd", "source": "random"},
        "connector": {"kind": "linear"},
        "lora": {"language": None, "vision": None},
        "data": {"kind": "world", "scenes": 2, "size": 16},
        "training": {"steps": 5, "batch": 1, "device": "cpu", "preview_every": 4, "feature_cache_gb": 1.0},
        "preview": {"steps": 1, "prompts": ["a red circle"]},
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps(settings), str(tmp_path / "large"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert size > 45e6
    most, left = max(before for before, _ in found), found[-1][1]
    assert 0.8 * size < most < 1.6 * size, (size, found)
    assert left < 0.4 * size, (size, found)
