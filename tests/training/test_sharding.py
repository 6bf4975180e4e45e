"""Shared-out weights compute what whole ones do, in every family; what cannot be shared out is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from toy_pipelines import pipeline

from lavibridge import BridgePipeline
from lavibridge.alignment.base import AlignmentObjective, NoisedLatents
from lavibridge.bridge import Bridge
from lavibridge.core import registry
from lavibridge.core.contracts import Batch
from lavibridge.core.errors import RecipeError
from lavibridge.core.registry import kind_of, kinds
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.distributed.sharding import check_sharding, shard_bridge
from lavibridge.training.objectives.native_encoder import native_bridge

Toy = Callable[..., Recipe]
FAMILIES = {*((kind, "sd") for kind in kinds("language")), *(("llama", kind) for kind in kinds("vision"))}
QUICK = (("llama", "sd"), ("t5", "sd"), ("llama", "pixart"))


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone: the same code, with one part of one."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def step(bridge: Bridge) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Losses, and the gradients of all trained weights."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, *bridge.vision.latent_shape(32, 32), generator=generator)
    batch = Batch(prompts=("a red circle", "two"), names=("1", "2"), latents=latents)
    losses = bridge(batch, torch.tensor([100, 700]), noise)
    trained = [weight for part in bridge.trained_parameters().values() for weight in part.values()]
    return losses.detach(), list(torch.autograd.grad(losses.sum(), trained))


@pytest.mark.parametrize(
    ("language", "vision"),
    [pytest.param(*each, marks=[] if each in QUICK else pytest.mark.slow) for each in sorted(FAMILIES)],
)
def test_losses_gradients_and_pictures_are_the_same(language: str, vision: str, group: None) -> None:
    small = {"rank": 4}
    # Below the last layer, sharded blocks do not run.
    read = {} if language == "llama" else {"read": {"layer": 1}}
    bridge = Bridge.compose(
        {"kind": language, "source": "random"},
        {"kind": vision, "source": "random"},
        {"kind": "lavi", **read},
        small,
        small,
    ).eval()
    for part in bridge.trained_parameters().values():
        for weight in part.values():  # not nothing, as LoRA is at first
            weight.data += 0.01
    losses, gradients = step(bridge)
    picture = BridgePipeline(bridge)(
        "a red circle", num_inference_steps=2, seed=0, height=32, width=32
    ).images[0]
    shard_bridge(bridge, torch.device("cpu"), 1)
    parts = [name for name, weight in bridge.named_parameters() if "DTensor" in type(weight.data).__name__]
    assert parts
    assert all(not weight.requires_grad for name, weight in bridge.named_parameters() if name in parts)
    found = BridgePipeline(bridge)("a red circle", num_inference_steps=2, seed=0, height=32, width=32).images[
        0
    ]
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(picture, dtype=int)).max() <= 2  # of 255
    again, anew = step(bridge)
    torch.testing.assert_close(again, losses, rtol=1e-5, atol=1e-6)
    for first, second in zip(gradients, anew, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-5)
    assert (kind_of("language", bridge.language), kind_of("vision", bridge.vision)) == (language, vision)


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
@pytest.mark.parametrize("match", ["blocks", "prediction", "tokens"])
def test_an_alignment_has_the_same_loss_and_gradients(match: str, group: None, tmp_path: Path) -> None:
    pipeline("sd3").save_pretrained(tmp_path)
    tokens = 64 + 20  # of CLIP and of T5
    student = Bridge.compose(
        {"kind": "llama", "source": "random"},
        {"kind": "sd3", "source": str(tmp_path)},
        {"kind": "resampler", "blocks": 1, "latents": tokens},
        None,
        None,
    ).eval()
    teacher = native_bridge(student, "training.align", 20)
    captions = ["a red circle", "a blue star", "two", "a ring above a large green cross"]
    latents = torch.randn(4, *student.vision.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    times = student.vision.times[[300, 500, 700, 900]]
    objective = registry.load_kind("alignment", match)
    compared: AlignmentObjective = objective(objective.Config())
    noised = [NoisedLatents(latents=latents, t=times, prompts=tuple(captions))]

    def step() -> tuple[torch.Tensor, list[torch.Tensor]]:
        compared.prepare(student, teacher, noised if compared.needs_latents else [])
        features = [each.features(captions) for each in (student, teacher)]
        loss = compared.loss(student, teacher, *features, torch.tensor([1, 1, 2, 2]))
        weights = list(student.connector.parameters())
        return loss.detach(), [
            each for each in torch.autograd.grad(loss, weights, allow_unused=True) if each is not None
        ]

    loss, gradients = step()
    shard_bridge(student, torch.device("cpu"), 1)
    again, anew = step()
    torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-6)
    for first, second in zip(gradients, anew, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"training": {"sharding": "fsdp2", "align": {"steps": 1}}},
            "match=attention, which calls single",
        ),
        ({"training": {"sharding": "fsdp2", "teacher": {}}}, "does not support training.teacher"),
        ({"training": {"sharding": "fsdp2"}, "language": {"quantize": "4bit"}}, "language.quantize"),
        ({"training": {"sharding": "fsdp2"}, "vision": {"quantize": "4bit"}}, "vision.quantize"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(toy: Toy, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_sharding(toy(**changed))
    check_sharding(toy(training={"sharding": "fsdp2"}))
