"""Configuration, registry, files, log, contracts: errors name the place, files are never half-written."""

import json
from pathlib import Path

import jaxtyping
import pytest
import torch
from pydantic import Field

from lavibridge.core import files, log, registry, sources
from lavibridge.core.config import Config, validate_config
from lavibridge.core.contracts import Batch, Conditioning, TextFeatures
from lavibridge.core.device import cpu_computes_bfloat16, pick_device, pick_dtype, set_threads
from lavibridge.core.errors import LaviError, ModelError, NotFiniteError, RecipeError
from lavibridge.core.files import split_json_lines
from lavibridge.core.log import JsonLog, progress_bar


class Inner(Config):
    """An inner part."""

    steps: int = Field(default=3, ge=1)
    """How many."""


class Outer(Config):
    """A whole."""

    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "a", "innr": {}}, r"here\.innr: unknown key; did you mean 'inner'"),
        ({"name": "a", "inner": {"stps": 1}}, r"here\.inner\.stps: unknown key; did you mean 'steps'"),
        ({"name": "a", "maybe": {"stps": 1}}, r"here\.maybe\.stps: unknown key; did you mean 'steps'"),
        ({"name": "a", "inner": {"steps": 0}}, r"here\.inner\.steps: .*greater than or equal to 1, found 0"),
        ({"name": "a", "inner": {"steps": "many"}}, r"here\.inner\.steps: .*integer.*found 'many'"),
        ({}, r"here\.name: this required key is missing"),
    ],
)
def test_wrong_configuration_is_named_by_its_path(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate_config(Outer, mapping, "here")


def test_configuration_is_frozen_and_described() -> None:
    config = validate_config(Outer, {"name": "a", "inner": {"steps": 5}}, "")
    assert config.inner.steps == 5
    with pytest.raises(ValueError, match="frozen"):
        config.name = "b"
    assert Inner.model_fields["steps"].description == "How many."


def test_kinds_are_the_files() -> None:
    assert set(registry.kinds("language")) >= {"clip", "t5", "llama", "bert"}
    assert set(registry.kinds("vision")) >= {"sd", "pixart"}
    assert set(registry.kinds("connectors")) >= {"lavi", "identity"}
    for room in ("language", "vision", "connectors"):
        for kind in registry.kinds(room):
            assert issubclass(registry.load_kind(room, kind).Config, Config)
    with pytest.raises(RecipeError, match="did you mean 'pixart'"):
        registry.load_kind("vision", "pixartt")


def test_atomic_writing_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "a.json"
    files.write_json(place, {"word": "naïve", "list": [1, 2]})
    assert files.read_json(place) == {"word": "naïve", "list": [1, 2]}
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(place, float("nan"))
    assert files.read_json(place)["list"] == [1, 2]
    assert [path.name for path in place.parent.iterdir()] == ["a.json"]
    files.write_atomic(place, b"\x00\x01")
    assert files.file_sha256(place) == "b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2"
    with pytest.raises(LaviError, match="not valid JSON"):
        files.read_json(place)
    with pytest.raises(LaviError, match="does not exist"):
        files.read_json(tmp_path / "b.json")


def test_sources(tmp_path: Path) -> None:
    assert sources.resolve_source(str(tmp_path)) == str(tmp_path)
    assert sources.resolve_source("t5-large") == "t5-large"
    assert sources.resolve_source("CompVis/stable-diffusion-v1-4") == "CompVis/stable-diffusion-v1-4"
    for name in files.shipped_models():
        assert Path(sources.resolve_source(name)).is_dir()
    for wrong in (str(tmp_path / "no"), "./no", "a/b/c", "mini-nothing"):
        with pytest.raises(ModelError, match="no model folder"):
            sources.resolve_source(wrong)
    file = tmp_path / "model.GGUF"
    for wrong in (str(file), "model.gguf", "a/model.gguf", "./a/b/model.gguf"):
        with pytest.raises(ModelError, match="no GGUF file"):
            sources.resolve_source(wrong)
    file.write_bytes(b"")
    assert sources.resolve_source(str(file)) == str(file)
    assert sources.resolve_source("owner/model/model.Q8_0.gguf") == "owner/model/model.Q8_0.gguf"


def test_model_json(tmp_path: Path) -> None:
    assert sources.read_model_json(str(tmp_path), "config.json") is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        sources.read_model_json(str(tmp_path), "config.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="found a list"):
        sources.read_model_json(str(tmp_path), "config.json")


def test_log_is_lines_that_grow(tmp_path: Path) -> None:
    for value in (1.0, float("nan")):
        log = JsonLog(tmp_path / "log.jsonl")
        log.write({"loss": value, "bins": [value, {"inner": float("inf")}]})
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [
        {"loss": 1.0, "bins": [1.0, {"inner": None}]},
        {"loss": None, "bins": [None, {"inner": None}]},
    ]


def test_progress_stays_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("steps") as bar:
        task = bar.add_task("working", total=2, status="loss 0.5")
        bar.advance(task)
    assert capsys.readouterr().out == ""


def test_progress_without_a_terminal_is_a_plain_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(patience: float) -> list[str]:
        monkeypatch.setattr(log, "LINE_INTERVAL", patience)
        with progress_bar("files") as bar:
            task = bar.add_task("reading", total=3, status="")
            bar.advance(task)
            bar.update(task, completed=2, status="loss 0.5")
        return [line.rstrip() for line in capsys.readouterr().err.splitlines() if " of " in line]

    assert [line.split("  ")[:2] for line in lines(0.0)] == [
        ["reading 1 of 3"],
        ["reading 2 of 3", "loss 0.5"],
    ]
    assert lines(60.0) == []


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(RecipeError, match="not a device"):
        pick_device("warp")
    assert pick_dtype("bfloat16") == torch.bfloat16
    with pytest.raises(RecipeError, match="float8"):
        pick_dtype("float8")
    assert set_threads() >= 1
    # A torch that cannot say what its CPU computes in is taken to say no.
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    assert not cpu_computes_bfloat16()


def test_contracts_hold_their_shapes() -> None:
    hidden, mask = torch.zeros(2, 1, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    TextFeatures(hidden=hidden, mask=mask)
    with pytest.raises(jaxtyping.TypeCheckError):
        TextFeatures(hidden=hidden, mask=mask[:, :2])
    with pytest.raises(jaxtyping.TypeCheckError):
        Conditioning(tokens=hidden[:, 0], mask=mask.float())
    with pytest.raises(ValueError, match="2 latents, 1 prompts"):
        Batch(prompts=("a",), names=("a",), latents=torch.zeros(2, 4, 4, 4))


def test_errors_are_of_one_family() -> None:
    error = NotFiniteError("loss is NaN", ("a.png",))
    assert isinstance(error, LaviError)
    assert error.names == ("a.png",)
    assert str(error) == "loss is NaN"


def test_tensors_are_written_whole_and_for_everybody(tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    from lavibridge.core.tensors import save_tensors

    plain, path = tmp_path / "plain", tmp_path / "deep" / "a.safetensors"
    plain.write_text("")
    save_tensors({"a": torch.arange(6).view(2, 3).T}, path, {"made_by": "a test"})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "made_by": "a test"}
        assert file.get_tensor("a").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert path.stat().st_mode == plain.stat().st_mode
    assert [each.name for each in path.parent.iterdir()] == ["a.safetensors"]


def test_json_lines_are_cut_at_line_feeds_alone() -> None:
    """Names may hold what `str.splitlines` takes for the end of a line."""
    rows = [{"file": f"a{sign}b.jpg"} for sign in "\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert [json.loads(line) for line in split_json_lines(f"{text}\n")] == rows
