"""Shared-out weights compute what whole ones do, in every family; what cannot be shared out is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch
from lavibridge.core.errors import RecipeError
from lavibridge.core.registry import kind_of, kinds
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.distributed.sharding import check_sharding, shard_bridge

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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"training": {"sharding": "fsdp2", "align": {"steps": 1}}},
            "match=attention: it calls single",
        ),
        ({"training": {"sharding": "fsdp2", "teacher": {}}}, "training.teacher: LoRA comes and goes"),
        ({"training": {"sharding": "fsdp2"}, "language": {"quantize": "4bit"}}, "language.quantize"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(toy: Toy, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_sharding(toy(**changed))
    check_sharding(toy(training={"sharding": "fsdp2"}))
