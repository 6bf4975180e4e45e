"""The teacher: what the image model predicts under its own text encoder is what the bridge learns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_pipelines import pipeline

from lavibridge import BridgePipeline, lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch
from lavibridge.core.errors import ModelError
from lavibridge.lora import LoraSettings
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.data.batches import TrainingPass
from lavibridge.training.objectives.teacher import Teacher, with_teacher_target
from lavibridge.training.train import train

Toy = Callable[..., Recipe]
SD = {"kind": "sd", "source": "mini-sd"}
CAPTIONS = ("a red circle", "", "a large striped green ring above a yellow cross")


def draw_of(bridge: Bridge) -> TrainingPass:
    shape = bridge.vision.latent_shape(64, 64)
    latents, noise = torch.randn(2, len(CAPTIONS), *shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(prompts=CAPTIONS, names=CAPTIONS, latents=latents)
    return TrainingPass(batch=batch, t=torch.tensor([100, 500, 900]), noise=noise)


@torch.no_grad()
def test_of_itself_there_is_nothing_to_learn() -> None:
    own = BridgePipeline.native("mini-sd", device="cpu").bridge
    draw = draw_of(own)
    batch = with_teacher_target(Teacher(own, 1.0), draw)
    assert float(own(batch, draw.t, draw.noise).max()) < 1e-9
    assert float(own(with_teacher_target(None, draw), draw.t, draw.noise).max()) > 1e-3


@torch.no_grad()
def test_under_guidance_it_says_what_two_passes_would() -> None:
    own = BridgePipeline.native("mini-sd", device="cpu").bridge
    draw = draw_of(own)
    plain, guided = (Teacher(own, scale).target(draw) for scale in (1.0, 3.0))
    noisy = draw.batch.latents, draw.noise
    assert noisy[0] is not None
    alpha, sigma = own.vision.alphas[draw.t], own.vision.sigmas[draw.t]
    xt = alpha[:, None, None, None] * noisy[0] + sigma[:, None, None, None] * noisy[1]
    empty = own.vision.predict(xt, own.vision.times[draw.t], own.condition(("", "", "")))
    torch.testing.assert_close(guided, empty + 3 * (plain - empty), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guided[1], plain[1], atol=1e-4, rtol=1e-4)  # of the empty caption


@torch.no_grad()
def test_it_leads_away_from_what_the_pipeline_leads_away_from(tmp_path: Path) -> None:
    """An SDXL folder forces zeros for the empty negative prompt, and so does its teacher."""
    pipeline("sdxl").save_pretrained(tmp_path)
    own = BridgePipeline.native(tmp_path, device="cpu").bridge
    shape = own.vision.latent_shape(32, 32)
    latents, noise = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(prompts=("a cat",), names=("a",), latents=latents)
    draw = TrainingPass(batch=batch, t=torch.tensor([500]), noise=noise)
    plain, guided = (Teacher(own, scale).target(draw) for scale in (1.0, 3.0))
    alpha, sigma = own.vision.alphas[draw.t], own.vision.sigmas[draw.t]
    xt = alpha[:, None, None, None] * latents + sigma[:, None, None, None] * noise
    zeros = own.connector(own.features([""], negative=True))
    assert not zeros.tokens.any()
    empty = own.vision.predict(xt, own.vision.times[draw.t], zeros)
    torch.testing.assert_close(guided, empty + 3 * (plain - empty), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_the_bridge_has_learnt_does_not_change_its_teacher() -> None:
    bridge = Bridge.compose({"source": "mini-llama"}, SD, "lavi", None, LoraSettings(rank=4, dropout=0.0))
    teacher, draw = Teacher(bridge, 2.0), draw_of(bridge)
    before = teacher.target(draw)
    for weight in lora.lora_parameters(bridge.vision.backbone).values():
        weight += 0.1
    assert torch.equal(teacher.target(draw), before)
    assert all(weight.requires_grad for weight in lora.lora_parameters(bridge.vision.backbone).values())


def test_a_taught_run_goes_on_exactly(toy: Toy, own_encoder: dict[str, str], tmp_path: Path) -> None:
    settings = {"teacher": {"guidance": 2.0}, "checkpoint_every": 1}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(toy(vision=own_encoder, training={"steps": 2, **settings}), straight)
    train(toy(vision=own_encoder, training={"steps": 1, **settings}), broken)
    train(toy(vision=own_encoder, training={"steps": 2, **settings}), broken, resume=True)
    for name in ("connector/model.safetensors", "vision_lora/adapter_model.safetensors"):
        one, other = (load_file(run / "checkpoints/step-2/bridge" / name) for run in (straight, broken))
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_bridge_that_has_learnt_guidance_draws_without(
    toy: Toy, own_encoder: dict[str, str], tmp_path: Path
) -> None:
    rows: list[int] = []
    for scale, expected in ((1.0, [2, 2]), (2.0, [1, 1])):
        run = tmp_path / str(scale)
        train(toy(vision=own_encoder, training={"steps": 1, "teacher": {"guidance": scale}}), run)
        bridge = BridgePipeline.from_pretrained(run, device="cpu").bridge
        rows.clear()
        bridge.vision.backbone.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
        BridgePipeline(bridge)("a red circle", num_inference_steps=2, seed=0)
        assert rows == expected
        rows.clear()
        BridgePipeline(bridge)("a red circle", num_inference_steps=2, guidance_scale=3.0, seed=0)
        assert rows == [2, 2]


def test_without_an_own_encoder_there_is_no_teacher(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"training\.teacher needs the vision model's own text encoder"):
        train(toy(training={"teacher": {}}), tmp_path / "run")
