"""A saved conditioning comes back as it was, and a damaged file is refused by name."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lavibridge.core.errors import DataError, LaviError, ModelError

FIXTURE = Path(__file__).parent / "conditioning.safetensors"
"""Written once by *Save conditioning*: a change of the format shows here."""


def entries() -> list[list[Any]]:
    """What is in the fixture."""
    first = {
        "pooled_output": torch.arange(2.0)[None] / 2,
        "attention_mask": torch.ones(1, 3, dtype=torch.long),
        "guidance": 3.5,
    }
    second = {"strength": 0.5, "area": [8, 8, 0, 0], "set_area_to_bounds": False}
    return [[torch.arange(12.0).reshape(1, 3, 4) / 8, first], [torch.ones(1, 1, 4), second]]


def assert_same(found: list[list[Any]], expected: list[list[Any]]) -> None:
    assert len(found) == len(expected)
    for (tensor, extra), (own, values) in zip(found, expected, strict=True):
        assert torch.equal(tensor, own)
        assert extra.keys() == values.keys()
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                assert extra[key].dtype == value.dtype
                assert torch.equal(extra[key], value)
            else:
                assert extra[key] == value


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's folder_paths.py: get_output_directory, get_input_directory, get_save_image_path."""
    module = ModuleType("folder_paths")

    def get_save_image_path(prefix: str, folder: str) -> tuple[str, str, int, str, str]:
        place = Path(folder) / Path(prefix).parent
        place.mkdir(parents=True, exist_ok=True)
        used = len(list(place.glob(f"{Path(prefix).name}_*")))
        return str(place), Path(prefix).name, used + 1, str(Path(prefix).parent), prefix

    for name in ("input", "output", "models/bridges"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(module, "get_save_image_path", get_save_image_path, raising=False)
    monkeypatch.setattr(module, "get_output_directory", lambda: str(tmp_path / "output"), raising=False)
    monkeypatch.setattr(module, "get_input_directory", lambda: str(tmp_path / "input"), raising=False)
    monkeypatch.setattr(module, "models_dir", str(tmp_path / "models"), raising=False)
    own = {"text_encoders": ([str(tmp_path / "encoders")], {".safetensors"})}
    monkeypatch.setattr(module, "folder_names_and_paths", own, raising=False)
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return tmp_path


def nodes(package: ModuleType) -> tuple[Any, Any]:
    found = package.NODE_CLASS_MAPPINGS
    return found["LaviSaveConditioning"](), found["LaviLoadConditioning"]()


def test_the_committed_file_is_read(package: ModuleType) -> None:
    _, load = nodes(package)
    assert_same(load.load(str(FIXTURE))[0], entries())


def test_save_and_load_in_comfyui_s_folders(package: ModuleType, folders: Path) -> None:
    save, load = nodes(package)
    shown = save.save(entries(), "conditioning/lavi")
    (file,) = shown["ui"]["text"]
    assert Path(file) == folders / "output" / "conditioning" / "lavi_00001_.safetensors"
    save.save(entries(), "conditioning/lavi")
    assert (folders / "output" / "conditioning" / "lavi_00002_.safetensors").is_file()
    assert_same(load.load("conditioning/lavi_00001_.safetensors")[0], entries())
    Path(file).rename(folders / "input" / "mine.safetensors")
    assert_same(load.load("mine.safetensors")[0], entries())
    assert load.IS_CHANGED("mine.safetensors") == (folders / "input" / "mine.safetensors").stat().st_mtime


def test_models_are_found_in_comfyui_s_folders(package: ModuleType, folders: Path) -> None:
    places = sys.modules[f"{package.__name__}.places"]
    (folders / "models" / "bridges" / "mine.safetensors").write_bytes(b"")
    assert places.find_bridge("mine") == str(folders / "models" / "bridges" / "mine.safetensors")
    assert places.find_bridge("owner/name") == "owner/name"
    assert places.find_language_model("mini-t5-small") == "mini-t5-small"


def test_what_no_file_can_hold_is_named(package: ModuleType, folders: Path) -> None:
    save, load = nodes(package)
    with pytest.raises(DataError, match="the entry 'control' is a module"):
        save.save([[torch.ones(1, 1, 4), {"control": package}]], "c")
    with pytest.raises(DataError, match="there is no file 'nowhere'"):
        load.load("nowhere")
    assert not list((folders / "output").rglob("*.safetensors"))


GOOD = {"lavibridge_conditioning": "1", "0": "{}"}
COND = {"0/cond": torch.ones(1, 2, 4)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "match"),
    [
        (COND, {"lavibridge_conditioning": "2", "0": "{}"}, "is no conditioning"),
        (COND, {}, "is no conditioning"),
        (COND, {"lavibridge_conditioning": "1"}, "not valid JSON"),
        (COND, {**GOOD, "0": "[" * 100_000}, "not valid JSON"),
        (COND, {**GOOD, "0": "[]"}, "other things than plain values"),
        (COND, {**GOOD, "0": json.dumps({"hooks": {"a": 1}})}, "other things than plain values"),
        ({"0/cond": torch.ones(2, 4)}, GOOD, r"has the shape \[2, 4\]"),
        ({"0/cond": torch.ones(1, 0, 4)}, GOOD, r"has the shape \[1, 0, 4\]"),
        ({"0/cond": torch.full((1, 2, 4), torch.nan)}, GOOD, "not finite"),
        ({"1/cond": torch.ones(1, 2, 4)}, GOOD, "not those of a conditioning"),
        ({**COND, "odd": torch.ones(1)}, GOOD, "not those of a conditioning"),
    ],
)
def test_a_damaged_file_is_refused(
    package: ModuleType, tmp_path: Path, tensors: Any, metadata: Any, match: str
) -> None:
    _, load = nodes(package)
    file = tmp_path / "wrong.safetensors"
    save_file(tensors, file, metadata)
    with pytest.raises(LaviError, match=match) as refused:
        load.load(str(file))
    assert "wrong.safetensors" in str(refused.value)
    file.write_bytes(file.read_bytes()[:-1] if len(file.read_bytes()) > 100 else b"")
    with pytest.raises(ModelError, match=r"wrong\.safetensors"):
        load.load(str(file))
