"""A saved bridge or a checkpoint from a stranger loads, or is refused in one line that names the file."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lavibridge.bridge import Bridge
from lavibridge.bridge.saved_bridge import read_saved_bridge, saved_checkpoints
from lavibridge.core.errors import LaviError, ModelError, RunError
from lavibridge.core.files import file_sha256
from lavibridge.training.checkpoints.checkpoint import (
    check_checkpoint_files,
    read_checkpoint_state,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved bridge between toys."""
    folder = tmp_path_factory.mktemp("bridge") / "saved"
    language, vision = ({"kind": kind, "source": "random"} for kind in ("t5", "pixart"))
    connector = {"kind": "resampler", "blocks": 1, "latents": 4, "heads": 2}
    lora = {"rank": 2}
    Bridge.compose(language, vision, connector, lora, None).save_pretrained(folder)
    return folder


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "saved"))


def described(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "bridge.json").read_text()))


def seal(folder: Path, description: dict[str, Any]) -> None:
    """Write bridge.json with the hashes of the files as they are now: a stranger would."""
    description["files"] = {name: file_sha256(folder / name) for name in description["files"]}
    (folder / "bridge.json").write_text(json.dumps(description))


def change_weights(folder: Path, file: str, change: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """Change the first tensor of a file; return its name."""
    weights = load_file(folder / file)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    save_file({**weights, name: change(weights[name].clone()).contiguous()}, folder / file)
    seal(folder, described(folder))
    return name


def test_the_original_loads(original: Path) -> None:
    Bridge.from_pretrained(original, "cpu")


@pytest.mark.parametrize(
    "text", ["[]", "{}", "3", "null", "", "{", "[" * 100_000, '{"format": ' + "1" * 5000 + "}", "\xff"]
)
def test_a_damaged_description_is_named(saved: Path, text: str) -> None:
    (saved / "bridge.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LaviError, match=r"bridge\.json"):
        read_saved_bridge(saved)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_the_description_reads_or_is_refused(saved: Path, data: st.DataObject) -> None:
    description = described(saved)
    key = data.draw(st.sampled_from(sorted(description)))
    changed = dict(description)
    if data.draw(st.booleans()):
        del changed[key]
    else:
        changed[key] = data.draw(JSON)
    (saved / "bridge.json").write_text(json.dumps(changed))
    with suppress(LaviError):
        read_saved_bridge(saved)
    (saved / "bridge.json").write_text(json.dumps(description))


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_option_of_a_part_loads_or_is_refused(
    original: Path, tmp_path: Path, data: st.DataObject
) -> None:
    saved = tmp_path / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    shutil.copytree(original, saved)
    description = described(saved)
    part = data.draw(st.sampled_from(["language", "vision", "connector", "language_lora", "folded"]))
    options = description[part]
    key = data.draw(st.sampled_from([*sorted(options), "other"]))
    description[part] = options | {key: data.draw(JSON)}
    seal(saved, description)
    with suppress(LaviError):
        Bridge.from_pretrained(saved, "cpu")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "connector/../../outside", "a\0b", "link"])
def test_a_description_names_files_of_its_folder_only(saved: Path, name: str) -> None:
    (saved.parent / "outside").write_text("secret")
    (saved / "link").symlink_to(saved.parent / "outside")
    description = described(saved)
    description["files"] |= {name: "0" * 64}
    (saved / "bridge.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match="which is not in this folder"):
        read_saved_bridge(saved)


@pytest.mark.parametrize(
    ("option", "value"), [("blocks", 100_000), ("latents", 10**9), ("heads", 10**12), ("width", 10**9)]
)
def test_a_connector_is_not_built_before_its_sizes_are_compared(saved: Path, option: str, value: int) -> None:
    description = described(saved)
    if option == "width":
        description["connector"] = {"kind": "lavi", "width": value}
    else:
        description["connector"][option] = value
    seal(saved, description)
    begun = time.perf_counter()
    with pytest.raises(ModelError, match=rf"the connector's {option} is {value:,}.* no side above"):
        Bridge.from_pretrained(saved, "cpu")
    assert time.perf_counter() - begun < 10


def test_a_connector_of_other_shapes_is_refused(saved: Path) -> None:
    description = described(saved)
    description["connector"]["latents"] = 5
    seal(saved, description)
    with pytest.raises(ModelError, match=r"the connector in .* does not fit: latents has shape"):
        Bridge.from_pretrained(saved, "cpu")


@pytest.mark.parametrize("file", ["connector/model.safetensors", "language_lora/adapter_model.safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved: Path, file: str, value: float) -> None:
    name = change_weights(saved, file, lambda weight: weight.fill_(value))
    with pytest.raises(ModelError, match=rf"not finite, for example in {name}"):
        Bridge.from_pretrained(saved, "cpu")


@pytest.mark.parametrize("file", ["connector/model.safetensors", "language_lora/adapter_model.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
def test_weights_of_another_type_are_not_cast(saved: Path, file: str, dtype: torch.dtype) -> None:
    name = change_weights(saved, file, lambda weight: weight.to(dtype))
    with pytest.raises(ModelError, match=rf"{name} is {str(dtype)[6:]} in the file, but needs float32"):
        Bridge.from_pretrained(saved, "cpu")


def test_folders_that_are_no_checkpoints_do_not_count(saved: Path, tmp_path: Path) -> None:
    for name in ("step-abc", "step-", "step-9.bak", "step-²", "step-3"):
        place = tmp_path / "run" / "checkpoints" / name
        shutil.copytree(saved, place / "bridge")
        (place / "manifest.json").write_text("{}")
    assert [path.name for path in saved_checkpoints(tmp_path / "run")] == ["step-3"]


@given(state=JSON)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_of_a_checkpoint_reads_or_is_refused(tmp_path: Path, state: object) -> None:
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(RunError, match=r"state\.json is damaged"):
        read_checkpoint_state(tmp_path)


@pytest.mark.parametrize("files", [[], 3, {"a": []}, {"a": {}}, {"../a": {"bytes": 1, "sha256": ""}}])
def test_a_sealed_manifest_of_a_stranger_is_refused(tmp_path: Path, files: Any) -> None:
    seal = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    manifest = {"format": 2, "files": files, "seal": seal}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"manifest\.json is damaged|which is not in this folder"):
        check_checkpoint_files(tmp_path)
