"""A model's folder from a stranger names only safetensors inside it."""

import json
import shutil
from pathlib import Path

import pytest

from lavibridge.core.errors import ModelError
from lavibridge.core.identity import source_identity
from lavibridge.core.paths import models_folder
from lavibridge.core.sources import check_weight_indexes, locate_source
from lavibridge.language.parts.loading import load_tokenizer


@pytest.mark.parametrize(
    "name",
    ["w.bin", "../w.safetensors", "/tmp/w.safetensors", "sub/w.safetensors", "a\\w.safetensors", "", 7],
)
@pytest.mark.parametrize("folder", [".", "unet"])
def test_an_index_names_plain_safetensors_only(tmp_path: Path, name: object, folder: str) -> None:
    index = tmp_path / folder / "model.safetensors.index.json"
    index.parent.mkdir(exist_ok=True)
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}))
    with pytest.raises(ModelError, match=r"plain names that end in \.safetensors"):
        locate_source(str(tmp_path))


def test_an_index_of_plain_names_passes(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.fp16-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    check_weight_indexes(tmp_path)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "{", '{"weight_map": 3}', "[" * 100_000, '{"a": ' + "1" * 5000 + "}"]
)
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json"):
        check_weight_indexes(tmp_path)


def test_neither_the_identity_nor_a_loader_takes_a_hostile_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models_folder() / "mini-t5-small", folder)
    source_identity(str(folder))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "w.bin"}}')
    with pytest.raises(ModelError, match=r"w\.bin"):
        source_identity(str(folder))
    with pytest.raises(ModelError, match=r"w\.bin"):
        load_tokenizer(str(folder), "", None)
