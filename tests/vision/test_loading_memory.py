"""Loading never holds two copies of a denoiser: what a process has resident, against the weights' size."""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import pytest

from lavibridge.core import registry

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PROGRAM = """
import gc, json, sys
from pathlib import Path
from threading import Event, Thread
from lavibridge.bridge.choices import model_of_choice

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

def loaded(options):
    gc.collect()
    ended, most, begun = Event(), [0], resident()
    def sample():
        while not ended.wait(0.002):
            most[0] = max(most[0], resident())
    sampler = Thread(target=sample, daemon=True)
    sampler.start()
    model = model_of_choice("vision", options)
    ended.set()
    sampler.join()
    tensors = [*model.backbone.state_dict().values(), *model.autoencoder.state_dict().values()]
    weights = sum(each.nbytes for each in tensors)
    return {"peak": most[0] - begun, "after": resident() - begun, "weights": weights}

cases = json.loads(sys.argv[1])
for options in cases.values():  # what libraries hold is no part of a model
    model_of_choice("vision", {**options, "kind": "sd", "source": "random"})
print(json.dumps({name: loaded(options) for name, options in cases.items()}))
"""
Loaded = Mapping[str, Mapping[str, float]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A U-Net of convolutions, which are laid out anew, and a transformer of linear layers: 70 to 130 MB."""
    sizes: dict[str, dict[str, Any]] = {
        "sd": {
            "block_out_channels": (192, 384),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "norm_num_groups": 8,
        },
        "pixart": {"num_attention_heads": 16, "attention_head_dim": 32, "num_layers": 6},
    }
    found = {}
    for kind, changes in sizes.items():
        family = registry.load_kind("vision", kind)
        model = family(family.Config(source="random"))
        settings = {**dict(model.backbone.config), **changes}
        if kind == "pixart":
            settings["cross_attention_dim"] = 512
        found[kind] = tmp_path_factory.mktemp(kind)
        made = getattr(diffusers, family.denoiser_class).from_config(settings)
        made.save_pretrained(found[kind] / family.denoiser_folder)
        model.autoencoder.save_pretrained(found[kind] / "vae")
        model.scheduler.save_pretrained(found[kind] / "scheduler")
    return found


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> Loaded:
    """Each case's resident bytes at most and afterwards, and the bytes of its weights."""
    cases: dict[str, dict[str, Any]] = {kind: {"source": str(folder)} for kind, folder in folders.items()}
    cases["bfloat16"] = {**cases["pixart"], "dtype": "bfloat16"}
    if find_spec("bitsandbytes") is not None:
        cases |= {bits: {**cases["pixart"], "quantize": bits} for bits in ("8bit", "4bit")}
    command = [sys.executable, "-c", PROGRAM, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: Loaded = json.loads(done.stdout.splitlines()[-1])
    return found


def test_one_copy_is_resident_while_weights_are_laid_out_anew(loaded: Loaded) -> None:
    found = loaded["sd"]
    assert found["weights"] > 40e6
    assert 0.8 * found["weights"] < found["peak"] < 1.25 * found["weights"], found
    assert found["after"] < 1.2 * found["weights"], found


def test_weights_that_stay_as_they_are_come_from_the_file_when_they_are_used(loaded: Loaded) -> None:
    found = loaded["pixart"]
    assert found["weights"] > 40e6
    assert found["peak"] < 0.3 * found["weights"], found


def test_another_number_format_is_half_a_copy(loaded: Loaded) -> None:
    """The file's pages are resident beside the weights of half their size while these are made."""
    found, whole = loaded["bfloat16"], loaded["pixart"]
    assert found["weights"] < 0.6 * whole["weights"]
    assert found["peak"] < 1.7 * whole["weights"], found
    assert found["after"] < 1.2 * found["weights"], found


@pytest.mark.parametrize(("bits", "share"), [("8bit", 0.4), ("4bit", 0.3)])
def test_a_quantised_model_lets_go_of_the_file(bits: str, share: float, loaded: Loaded) -> None:
    """At most the file's pages, the packed weights and one layer's float32 work; a second copy is over 2."""
    pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    found, whole = loaded[bits], loaded["pixart"]["weights"]
    assert found["peak"] < 1.7 * whole, (whole, found)
    assert found["after"] < share * whole, (whole, found)
