"""A denoiser whose blocks are in files computes with the same weights, bit for bit, as in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_pipelines import pipeline

from lavibridge import BridgePipeline
from lavibridge.bridge.identity import bridge_identity
from lavibridge.core.errors import ModelError, RecipeError, RunError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
CALL: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32, "seed": 0, "output_type": "np"}


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart", "sana"])
def test_an_offloaded_denoiser_draws_the_same(name: str, tmp_path: Path) -> None:
    pipeline(name).save_pretrained(tmp_path / "model")
    whole = BridgePipeline.from_pretrained(tmp_path / "model", device="cpu")
    whole.bridge.vision.backbone.to(memory_format=torch.contiguous_format)
    offloaded = BridgePipeline.from_pretrained(tmp_path / "model", device="cpu", offload=tmp_path / "blocks")
    files = list((tmp_path / "blocks").glob("*.safetensors"))
    assert len(files) > 1
    size = sum(weight.nbytes for weight in whole.bridge.vision.backbone.parameters())
    assert sum(file.stat().st_size for file in files) >= size
    own = whole.bridge.vision.backbone.state_dict()
    used: dict[str, bool] = {}

    def compare(name: str, layer: torch.nn.Module) -> None:
        weight = getattr(layer, "weight", None)
        if weight is not None:
            used[name] = torch.equal(weight, own[f"{name}.weight"])

    layers = offloaded.bridge.vision.backbone.named_modules()
    for name, layer in [each for each in layers if not list(each[1].children())]:
        layer.register_forward_pre_hook(lambda layer, _, name=name: compare(name, layer))
    for prompts in (["a red circle"], ["a blue square", "two dogs"]):
        pictures = [np.asarray(pipe(prompts, **CALL).images) for pipe in (whole, offloaded)]
        # Kernels differ with the place of a weight in memory, which the file decides.
        np.testing.assert_allclose(*pictures, atol=1e-5, rtol=0)
    assert len(used) > 10
    assert all(used.values())
    for file in files:
        file.unlink()
    with pytest.raises(FileNotFoundError):
        offloaded("a red circle", **CALL)


def test_an_offloaded_denoiser_stays_as_it_is(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path / "model")
    offloaded = BridgePipeline.native(tmp_path / "model", device="cpu", offload=tmp_path / "blocks")
    for doing, run in (
        ("move or convert", lambda: offloaded.to(dtype="bfloat16")),
        ("save", lambda: offloaded.save_pretrained(tmp_path / "saved")),
        ("identify", lambda: bridge_identity(offloaded.bridge)),
    ):
        with pytest.raises(
            ModelError, match=f"cannot {doing} a bridge whose denoiser is offloaded into files"
        ):
            run()
    with pytest.raises(RunError, match="blocks exists already"):
        BridgePipeline.native(tmp_path / "model", device="cpu", offload=tmp_path / "blocks")


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart", "sana"])
def test_layers_stored_in_8_bits_draw_nearly_the_same(name: str, tmp_path: Path) -> None:
    pipeline(name).save_pretrained(tmp_path)
    whole = BridgePipeline.from_pretrained(tmp_path, device="cpu")
    stored = BridgePipeline.from_pretrained(tmp_path, device="cpu", storage_dtype="float8_e4m3fn")
    pictures = [np.asarray(pipe("a red circle", **CALL).images) for pipe in (whole, stored)]
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 0.05
    sizes = [
        sum(each.nbytes for each in pipe.bridge.vision.backbone.parameters()) for pipe in (whole, stored)
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_layers_stored_in_8_bits_are_offloaded_too(tmp_path: Path) -> None:
    pipeline("sd3").save_pretrained(tmp_path / "model")
    stored, both = (
        BridgePipeline.native(tmp_path / "model", device="cpu", storage_dtype=torch.float8_e4m3fn, **options)
        for options in ({}, {"offload": tmp_path / "blocks"})
    )
    pictures = [np.asarray(pipe("a red circle", **CALL).images) for pipe in (stored, both)]
    np.testing.assert_allclose(*pictures, atol=1e-5, rtol=0)
    with pytest.raises(RecipeError, match="storage_dtype: 'int8' is not one of float8_e4m3fn, float8_e5m2"):
        BridgePipeline.native(tmp_path / "model", storage_dtype="int8")
