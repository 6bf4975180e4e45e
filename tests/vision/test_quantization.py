"""A denoiser in 8 or 4 bits predicts, draws and trains nearly as in float32; the errors are stated.

The miniatures are pretrained, so that their weights are distributed as those of larger models are.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_pipelines import pipeline

from lavibridge import Bridge, BridgePipeline, lora
from lavibridge.bridge.choices import model_of_choice
from lavibridge.bridge.identity import bridge_identity
from lavibridge.core.contracts import Batch, Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.core.quantization import quantizable_layers

pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers"),
]
BITS = ("8bit", "4bit")
PREDICTION = {
    ("mini-sd", "8bit"): 0.01,
    ("mini-sd", "4bit"): 0.05,
    ("mini-pixart", "8bit"): 0.08,
    ("mini-pixart", "4bit"): 0.22,
}
"""Largest relative error of a prediction; nearly all weights of PixArt are in linear layers."""
CALL: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32, "seed": 0, "output_type": "np"}


def prediction(model: Any) -> torch.Tensor:
    """What a model predicts for random latents and tokens of the scale that it knows."""
    chance = torch.Generator().manual_seed(0)
    shape = model.latent_shape(model.default_size, model.default_size)
    tokens = torch.randn(2, 8, model.spec.context, generator=chance) * (model.spec.rms or 1.0)
    conditioning = Conditioning(tokens=tokens, mask=torch.ones(2, 8, dtype=torch.bool))
    noisy = torch.randn(2, *shape, generator=chance)
    with torch.no_grad():
        found: torch.Tensor = model.predict(noisy, model.times[[200, 700]], conditioning)
    return found


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", ["mini-sd", "mini-pixart"])
def test_predictions_are_near_those_in_float32(name: str, bits: str) -> None:
    whole, small = (model_of_choice("vision", {"source": name, "quantize": each}) for each in (None, bits))
    expected, found = prediction(whole), prediction(small)
    error = float((found - expected).norm() / expected.norm())
    assert 1e-5 < error < PREDICTION[name, bits]
    assert {weight.dtype for weight in small.autoencoder.parameters()} == {torch.float32}
    assert not quantizable_layers(small.backbone)
    convolutions = [each for each in small.backbone.modules() if isinstance(each, nn.Conv2d)]
    assert all(each.weight.dtype == torch.float32 for each in convolutions)


@pytest.mark.parametrize("bits", BITS)
def test_two_steps_train_lora_beside_them_nearly_as_in_float32(bits: str) -> None:
    losses, moved = [], []
    for quantize in (None, bits):
        torch.manual_seed(0)
        vision = {"source": "mini-sd", "quantize": quantize}
        bridge = Bridge.compose("mini-llama", vision, "linear", None, {"rank": 4, "dropout": 0.0})
        bridge.train()
        weights = [each for each in bridge.parameters() if each.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=0.1)
        before = {name: each.clone() for name, each in bridge.trained_parameters()["vision_lora"].items()}
        frozen = {
            name: each.detach().clone() for name, each in bridge.named_parameters() if not each.requires_grad
        }
        chance = torch.Generator().manual_seed(1)
        shape = bridge.vision.latent_shape(bridge.vision.default_size, bridge.vision.default_size)
        batch = Batch(
            prompts=("a red circle", "two dogs"),
            names=("1", "2"),
            latents=torch.randn(2, *shape, generator=chance),
        )
        noise = torch.randn(2, *shape, generator=chance)
        for _ in range(2):
            optimizer.zero_grad()
            loss = bridge(batch, torch.tensor([100, 600]), noise).mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        after = bridge.trained_parameters()["vision_lora"]
        assert {each.dtype for each in after.values()} == {torch.float32}
        moved.append(torch.cat([(after[name] - before[name]).detach().flatten() for name in before]))
        assert all(torch.equal(each, frozen[n]) for n, each in bridge.named_parameters() if n in frozen)
    assert np.allclose(losses[:2], losses[2:], rtol={"8bit": 0.01, "4bit": 0.05}[bits])
    alike = float(torch.cosine_similarity(moved[0], moved[1], dim=0))
    assert alike > {"8bit": 0.99, "4bit": 0.9}[bits], alike


@pytest.mark.parametrize("bits", BITS)
def test_a_bridge_trained_in_float32_draws_in_few_bits_with_lora_beside_them(
    bits: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    bridge = Bridge.compose("mini-llama", "mini-sd", "linear", {"rank": 2}, {"rank": 2})
    for name, each in bridge.trained_parameters()["vision_lora"].items():
        torch.nn.init.normal_(each, std=0.02, generator=torch.Generator().manual_seed(len(name)))
    bridge.eval().save_pretrained(tmp_path / "bridge")
    whole, small = (
        BridgePipeline.from_pretrained(tmp_path / "bridge", device="cpu", quantize=each)
        for each in (None, bits)
    )
    assert whole.bridge.is_merged
    assert not small.bridge.is_merged
    for model in (small.bridge.language, small.bridge.vision):
        assert model.placement.quantize == bits
        assert lora.has_lora(model.backbone)
    expected, found = (np.asarray(pipe("a red circle", **CALL).images) for pipe in (whole, small))
    assert 0 < np.abs(expected - found).mean() < {"8bit": 0.05, "4bit": 0.15}[bits]
    small.save_pretrained(tmp_path / "again")
    again = BridgePipeline.from_pretrained(tmp_path / "again", device="cpu")
    assert again.bridge.vision.placement.quantize == bits, "a saved bridge remembers its bits"
    assert np.array_equal(np.asarray(again("a red circle", **CALL).images), found)
    assert bridge_identity(again.bridge) == bridge_identity(small.bridge) != bridge_identity(whole.bridge)


def test_a_quantised_denoiser_computes_in_another_format() -> None:
    pipe = BridgePipeline.native({"source": "mini-sd", "quantize": "4bit"}, device="cpu")
    expected = np.asarray(pipe("a red circle", **CALL).images)
    half = np.asarray(pipe.to(dtype="bfloat16")("a red circle", **CALL).images)
    assert 0 < np.abs(half - expected).mean() < 0.1


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "pixart", "sana"])
def test_every_family_draws_in_4_bits(name: str, tmp_path: Path) -> None:
    pipeline(name).save_pretrained(tmp_path / "model")
    pipe = BridgePipeline.from_pretrained(tmp_path / "model", device="cpu", quantize="4bit")
    assert np.isfinite(np.asarray(pipe("a red circle", **CALL).images)).all()


def test_a_quantised_denoiser_is_offloaded_as_it_is(tmp_path: Path) -> None:
    choice: dict[str, Any] = {"device": "cpu", "quantize": "4bit"}
    whole = BridgePipeline.native("mini-pixart", **choice)
    offloaded = BridgePipeline.native("mini-pixart", **choice, offload=tmp_path / "blocks")
    pictures = [np.asarray(pipe("a red circle", **CALL).images) for pipe in (whole, offloaded)]
    np.testing.assert_allclose(*pictures, atol=1e-4, rtol=0)  # kernels differ with the place of a weight
    with pytest.raises(ModelError, match=r"is in 4 bits, which storage_dtype cannot store again"):
        BridgePipeline.native("mini-pixart", **choice, storage_dtype="float8_e4m3fn")
