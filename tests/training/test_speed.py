"""What changes speed and memory only: the losses and gradients stay what they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.assemble import assemble_bridge
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.distributed.processes import begin_processes
from lavibridge.training.loop import training_mode

Toy = Callable[..., Recipe]
LORA = {"rank": 4, "dropout": 0.2}
PAIRS = [
    ("llama", "sd", "lavi"),
    ("qwen", "pixart", "llmdiff"),
    ("gemma", "sd", "llmdiff"),
    ("t5", "sd3", "lavi"),
    ("bert", "sana", "query"),
    ("clip", "sdxl", "lavi"),
    ("siglip", "pixart", "linear"),
    ("t5gemma", "flux", "lavi"),
]
"""Every language family once, and every denoiser."""


def pair(toy: Toy, language: str, vision: str, connector: str, **training: Any) -> Recipe:
    return toy(
        language={"kind": language},
        vision={"kind": vision},
        connector={"kind": connector},
        lora={"language": LORA, "vision": LORA},
        training=training,
    )


def learn(recipe: Recipe) -> tuple[Tensor, dict[str, Tensor], int]:
    """The losses of a batch, every gradient, and the bytes that were kept for the backward pass."""
    bridge = build_bridge(recipe)
    with torch.no_grad():  # LoRA that is zero would have nothing to pass on
        for part in bridge.trained_parameters().values():
            for number, weight in enumerate(part.values()):
                generator = torch.Generator().manual_seed(number)
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    training_mode(bridge)
    draw = BatchLoader(
        World(World.Config(scenes=4), RejectedPictures()), bridge.vision, recipe.training, (16, 16)
    ).draw(0, 0)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = bridge(draw.batch, draw.t, draw.noise)
    losses.mean().backward()
    weights = {p.untyped_storage().data_ptr() for p in bridge.parameters()}
    size = sum(number for place, number in kept.items() if place not in weights)
    return losses.detach(), gradients(bridge), size


def gradients(bridge: Bridge) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": weight.grad
        for part, weights in bridge.trained_parameters().items()
        for name, weight in weights.items()
        if weight.grad is not None
    }


def assert_same(one: tuple[Any, ...], other: tuple[Any, ...], tolerance: float) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    assert one[1].keys() == other[1].keys()
    scale = max(float(value.abs().max()) for value in one[1].values())
    for name, value in one[1].items():
        assert float((value - other[1][name]).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize(("language", "vision", "connector"), PAIRS)
def test_recomputed_blocks_give_the_same_gradients_from_less_memory(
    toy: Toy, language: str, vision: str, connector: str
) -> None:
    """With every dropout on: what is recomputed draws the same masks again."""
    plain = learn(pair(toy, language, vision, connector))
    recomputed = learn(pair(toy, language, vision, connector, checkpointing=True))
    assert_same(plain, recomputed, 1e-6)
    assert recomputed[2] < 0.8 * plain[2]


def test_a_model_without_blocks_to_recompute_says_so(toy: Toy) -> None:
    with pytest.raises(ModelError, match=r"LDMBertModel.*leave training\.checkpointing"):
        build_bridge(pair(toy, "ldm_bert", "ldm", "lavi", checkpointing=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch hides its own warning, but not from "error"
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_give_the_same_gradients(toy: Toy, checkpointing: bool) -> None:
    still = {"language": {"rank": 4, "dropout": 0.0}, "vision": {"rank": 4, "dropout": 0.0}}
    made = [
        learn(
            toy(
                lora=still,
                connector={"kind": "linear"},
                training={"compile": how, "checkpointing": checkpointing},
            )
        )
        for how in (None, "aot_eager")
    ]
    assert_same(made[0], made[1], 1e-5)


@pytest.mark.parametrize(("language", "vision"), [("llama", "sd"), ("t5", "flux"), ("clip", "pixart")])
def test_plain_attention_gives_the_same_gradients(toy: Toy, language: str, vision: str) -> None:
    made = [learn(pair(toy, language, vision, "linear", attention=how)) for how in ("sdpa", "eager")]
    assert_same(made[0], made[1], 1e-4)


@pytest.mark.parametrize(("language", "vision"), [("llama", "sd"), ("t5", "sd")])
def test_attention_that_cannot_be_had_is_refused(toy: Toy, language: str, vision: str) -> None:
    with pytest.raises(ModelError, match=r"training\.attention is flash"):
        build_bridge(pair(toy, language, vision, "linear", attention="flash"))


def test_a_cpu_trains_in_the_plain_order_and_draws_in_channels_last(toy: Toy) -> None:
    """LoRA's small convolutions are slow in channels last there, and merged they are gone."""
    recipe = toy(training={"device": "cpu"})
    with begin_processes(recipe.training) as processes:
        bridge = assemble_bridge(recipe, processes)
    trained, drawn = bridge.vision.backbone, build_bridge(recipe).vision.backbone
    assert trained.conv_out.weight.is_contiguous()
    assert not drawn.conv_out.weight.is_contiguous()
    assert drawn.conv_out.weight.is_contiguous(memory_format=torch.channels_last)
