"""The published code's own numbers, on small random models: features, predictions, sampling, training.

The fixtures lie beside the checkout; where they are absent these tests are skipped.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from every_step import sample
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from lavibridge import Bridge, import_released, lora
from lavibridge.core.contracts import Batch, Conditioning
from lavibridge.diffusion.guidance import apply_guidance

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
COMBINATIONS = {
    "t5_unet": "stable-diffusion-v1-4",
    "t5_transformer": "PixArt-XL-2-512x512",
}
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published numbers are not at {GOLDEN}")


@dataclass(frozen=True)
class Case:
    name: str
    bridge: Bridge
    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    sees_padding: bool

    def first_layer(self, file: str) -> str:
        """The layer of the first pair of a published nameless list."""
        folder = GOLDEN / self.name / "ckpt"
        return str(json.loads((folder / "ckpt.json").read_text())[file]["modules"][0])


@pytest.fixture(params=sorted(COMBINATIONS))
def case(request: pytest.FixtureRequest) -> Case:
    """The published files as `import_released` reads them; dropout off, as the numbers were made."""
    name = request.param
    bridge = import_released(
        "lavi-bridge",
        GOLDEN / name / "ckpt",
        language=str(GOLDEN / "models" / "t5-large"),
        vision=str(GOLDEN / "models" / COMBINATIONS[name]),
        device="cpu",
    )
    facts = json.loads((GOLDEN / name / "golden.json").read_text())
    tensors = load_file(GOLDEN / name / "golden.safetensors")
    return Case(name, bridge, facts, tensors, not facts["config"]["mask"])


def test_settings_are_those_of_the_published_training(case: Case) -> None:
    language, published = case.bridge.language, case.facts["config"]
    assert language.config.see_padding is case.sees_padding
    assert language.max_tokens == published["max_length"]
    assert case.bridge.connector.config.read == "last"
    for model in (language, case.bridge.vision):
        settings = lora.lora_settings_of(model.backbone)
        assert settings is not None
        assert (settings.rank, settings.dropout) == (published["r"], 0.1)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal within a share of the expected tensor's largest value."""
    found = found.detach()
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def published_conditioning(case: Case) -> Conditioning:
    """The unconditional and the first prompt's conditioning, as published."""
    tokens = torch.cat([case.tensors["infer.uncond_post"], case.tensors["infer.text_post"][:1]])
    mask = torch.cat([case.tensors["infer.uncond_mask"], case.tensors["infer.attention_mask"][:1]]).bool()
    return Conditioning(tokens=tokens, mask=torch.ones_like(mask) if case.sees_padding else mask)


def test_text_features_and_conditioning(case: Case) -> None:
    for prompts, name in ((case.facts["prompts"], "text"), ([""], "uncond")):
        features = case.bridge.features(prompts)
        conditioning = case.bridge.connector(features)
        width = features.mask.shape[1]
        expected = case.tensors["infer.attention_mask" if name == "text" else "infer.uncond_mask"].bool()
        if case.sees_padding:
            assert width == 77
            assert bool(features.mask.all())
        else:
            assert torch.equal(features.mask, expected[:, :width])
            assert not expected[:, width:].any()
        for found, stage in ((features.hidden[:, -1], "pre"), (conditioning.tokens, "post")):
            wanted = case.tensors[f"infer.{name}_{stage}"][:, :width]
            assert_close(found[features.mask], wanted[features.mask])


def test_denoiser(case: Case) -> None:
    found = case.bridge.vision.predict(
        case.tensors["denoiser.input"],
        torch.full((2,), case.facts["denoiser.timestep"]),
        published_conditioning(case),
    )
    assert_close(found, case.tensors["denoiser.output"][:, :4])


def test_denoiser_without_its_lora_is_another(case: Case) -> None:
    for parameter in lora.lora_parameters(case.bridge.vision.backbone).values():
        parameter.data.zero_()
    found = case.bridge.vision.predict(
        case.tensors["denoiser.input"],
        torch.full((2,), case.facts["denoiser.timestep"]),
        published_conditioning(case),
    )
    expected = case.tensors["denoiser.output"][:, :4]
    assert (found - expected).abs().max() > 0.1 * expected.abs().max()


def test_sampling(case: Case) -> None:
    """UniPC with guidance, step by step; the published version ends at the first training step's sigma."""
    vision, steps = case.bridge.vision, case.facts["steps"]
    scheduler = diffusers.UniPCMultistepScheduler.from_config(
        vision.scheduler.config, final_sigmas_type="sigma_min"
    )
    conditioning = published_conditioning(case)
    seen: list[Tensor] = []

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        assert_close(t.float(), case.tensors["infer.timesteps"][len(seen)])
        twice = vision.predict(torch.cat([noisy, noisy]), t.expand(2), conditioning)
        guided = apply_guidance(twice[:1], twice[1:], case.facts["guidance"])
        assert_close(guided, case.tensors[f"infer.noise_pred_step{len(seen)}"], 2e-4)
        seen.append(guided)
        return guided

    with torch.no_grad():
        latents = sample(predict, scheduler, case.tensors["infer.xT"], steps)
    assert len(seen) == steps
    assert_close(latents, case.tensors[f"infer.latents_step{steps - 1}"], 2e-4)


def test_autoencoder(case: Case) -> None:
    vision = case.bridge.vision
    decoded = vision.decode(case.tensors["vae.decode_latents"] * case.facts["vae_scale"])
    assert_close(decoded, case.tensors["vae.decoded"])


def test_three_training_steps(case: Case) -> None:
    bridge, facts = case.bridge, case.facts
    parts = bridge.trained_parameters()
    vision_lr, language_lr, connector_lr = facts["config"]["lrs"]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(parts["vision_lora"].values()), "lr": vision_lr},
            {"params": list(parts["language_lora"].values()), "lr": language_lr},
            {"params": list(parts["connector"].values()), "lr": connector_lr},
        ],
        weight_decay=1e-2,
    )
    everything = [value for part in parts.values() for value in part.values()]
    batch = Batch(
        prompts=tuple(facts["captions"]),
        names=("image0.png", "image1.png"),
        latents=case.tensors["train.latents"],
    )
    for step, expected in enumerate(facts["train_steps"]):
        noise = case.tensors["train.noise"].roll(step, dims=0)
        t = (case.tensors["train.timesteps"] + 37 * step) % 1000
        loss = bridge(batch, t, noise).mean()
        assert loss.item() == pytest.approx(expected["loss"], rel=1e-4)
        loss.backward()
        norms = {
            part: torch.stack(
                [value.grad.norm() for value in values.values() if value.grad is not None]
            ).norm()
            for part, values in parts.items()
        }
        assert float(norms["vision_lora"]) == pytest.approx(expected["grad_norm_vis"], rel=1e-3)
        assert float(norms["language_lora"]) == pytest.approx(expected["grad_norm_text"], rel=1e-3)
        assert float(norms["connector"]) == pytest.approx(expected["grad_norm_adapter"], rel=1e-3)
        total = torch.nn.utils.clip_grad_norm_(everything, 1.0)
        assert float(total) == pytest.approx(expected["total_norm_before_clip"], rel=1e-3)
        optimizer.step()
        optimizer.zero_grad()
    first_text, first_vision = map(case.first_layer, ("lora_text.pt", "lora_vis.pt"))
    for found, name in (
        (parts["connector"]["ff2.net.2.weight"], "adapter.ff2.net.2.weight"),
        (parts["language_lora"][f"base_model.model.{first_text}.lora_B.weight"], "text_up0"),
        (parts["vision_lora"][f"base_model.model.{first_vision}.lora_B.weight"], "vis_up0"),
    ):
        assert_close(found, case.tensors[f"train.after3.{name}"])


def test_pictures_become_the_published_latents(case: Case) -> None:
    folder = GOLDEN / case.name
    arrays = [np.asarray(Image.open(folder / f"image{i}.png").convert("RGB"), np.float32) for i in (0, 1)]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1
    mean, std = case.bridge.vision.encode_moments(images)
    scale = case.facts["vae_scale"]
    assert_close(mean / scale, case.tensors["train.vae_mean"])
    assert_close(std / scale, case.tensors["train.vae_std"])
    assert_close(mean + std * case.tensors["train.vae_eps"], case.tensors["train.latents"])
