"""A model is known by what its files hold, wherever they lie; large files are read once."""

import json
import os
import time
from pathlib import Path

import pytest

from lavibridge.core import identity as module
from lavibridge.core.errors import ModelError
from lavibridge.core.files import file_sha256
from lavibridge.core.identity import cached_file_hash, folder_identity, source_identity
from lavibridge.core.paths import cache_folder


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a model, and a cache folder of its own."""
    monkeypatch.setenv("LAVIBRIDGE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "unet/weights.safetensors").write_bytes(b"w" * 100)
    (folder / "README.md").write_text("about it")
    return folder


def test_only_what_the_model_is_read_from_counts(model: Path) -> None:
    first = folder_identity(model)
    assert len(first) == 64
    (model / "README.md").write_text("about it, again")
    (model / "hashes.json").write_text("[]")
    assert folder_identity(model) == first
    found = {first}
    for change in (
        lambda: (model / "unet/weights.safetensors").write_bytes(b"v" * 100),
        lambda: (model / "config.json").write_text("{ }"),
        lambda: (model / "unet/weights.safetensors").rename(model / "weights.safetensors"),
        lambda: (model / "tokenizer.model").write_bytes(b""),
    ):
        change()
        found.add(folder_identity(model))
    assert len(found) == 5


def test_another_place_is_the_same_model(model: Path, tmp_path: Path) -> None:
    first = source_identity(str(model))
    model.rename(tmp_path / "elsewhere")
    assert source_identity(str(tmp_path / "elsewhere")) == first
    assert source_identity("random") == "random"
    with pytest.raises(ModelError, match="no model folder"):
        source_identity(str(model))


def test_a_large_file_is_read_once_until_it_changes(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = model / "unet/weights.safetensors"
    large.write_bytes(b"w" * module.CACHED_HASH_BYTES)
    os.utime(large, (1, 1))
    first = cached_file_hash(large)
    (note,) = (cache_folder() / "hashes").iterdir()
    monkeypatch.setattr(module, "file_sha256", lambda path: "read again")
    assert cached_file_hash(large) == first
    os.utime(large, (2, 2))
    assert cached_file_hash(large) == "read again"
    note.write_text("torn")
    assert cached_file_hash(large) == "read again"
    note.write_text(json.dumps([1]))
    assert cached_file_hash(large) == "read again"


def test_another_file_under_an_old_time_and_size_is_read_anew(model: Path) -> None:
    """As archives and `cp --preserve` leave it."""
    large = model / "unet/weights.safetensors"
    large.write_bytes(b"w" * module.CACHED_HASH_BYTES)
    os.utime(large, (1, 1))
    first = cached_file_hash(large)
    time.sleep(0.02)  # the system's clock of files is coarse
    large.write_bytes(b"v" * module.CACHED_HASH_BYTES)
    os.utime(large, (1, 1))
    assert cached_file_hash(large) == file_sha256(large) != first


def test_a_file_that_was_just_written_is_not_remembered(model: Path) -> None:
    large = model / "unet/weights.safetensors"
    large.write_bytes(b"w" * module.CACHED_HASH_BYTES)
    cached_file_hash(large)
    assert not (cache_folder() / "hashes").exists()


def test_a_cache_that_cannot_be_written_is_no_hindrance(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAVIBRIDGE_CACHE", str(tmp_path / "file"))
    large = model / "unet/weights.safetensors"
    large.write_bytes(b"w" * module.CACHED_HASH_BYTES)
    os.utime(large, (1, 1))
    assert len(cached_file_hash(large)) == 64


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LAVIBRIDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lavibridge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/lavibridge"
