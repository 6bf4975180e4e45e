"""Shards the frozen weights over N processes (FSDP2): each holds one shard and gathers the rest by block.

    block i:   gather its weights from all processes -> compute -> keep only the own shard
    trained weights (LoRA, connector): whole in each process; DDP averages their gradients as usual

Most weights are frozen. Trained weights and their optimiser stay whole, so a checkpoint is the same as
without sharding, and any number of processes can read it. A block is an element of an outermost
`ModuleList`: a layer of a transformer, a stage of a U-Net.

Zhao et al. 2023 (FSDP), arXiv 2304.11277; the second version is `torch.distributed.fsdp.fully_shard`.
"""

import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from lavibridge.bridge import Bridge
from lavibridge.core.errors import RecipeError
from lavibridge.core.sources import GGUF
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.alignment.objective import alignment_method


def check_sharding(recipe: Recipe) -> None:
    """Raise RecipeError if the recipe combines sharding with a method that needs whole weights."""
    if recipe.training.sharding is None:
        return
    if recipe.training.align is not None and alignment_method(recipe).objective.calls_layers:
        raise RecipeError(
            "training.sharding does not support training.align.match=attention, which calls single attention "
            "layers: their weights are whole only inside their block. Use match blocks, prediction or tokens"
        )
    if recipe.training.teacher is not None:
        raise RecipeError(
            "training.sharding does not support training.teacher, which disables and enables LoRA in every "
            "step: leave one of the two out"
        )
    for name, section in (("language", recipe.language), ("vision", recipe.vision)):
        options = section.model_dump()
        is_gguf = name == "vision" and str(options["source"]).lower().endswith(GGUF)
        if options.get("quantize") is not None or is_gguf:
            what = "a denoiser in GGUF" if is_gguf else f"{name}.quantize"
            raise RecipeError(
                f"training.sharding does not support {what}, because quantised weights cannot be sharded: "
                "leave one of the two out (in 4 bits, a model of 7 billion weights needs 4 GB)"
            )


def shard_bridge(bridge: Bridge, device: torch.device, count: int) -> None:
    """Shard the frozen weights of both models over `count` processes; each keeps its shard on `device`."""
    # We take a part of some denoisers' predictions, and never change it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (count,))
    language, vision = bridge.language, bridge.vision
    frozen = [*language.parameters(), *vision.backbone.parameters()]
    shared = {weight for weight in frozen if not weight.requires_grad}
    whole = set(bridge.parameters()) - shared
    calls = {language: ("encode",), vision: ("predict", "block_outputs")}
    for part, inner in ((language, language), (vision, vision.backbone)):
        for weight in inner.parameters():  # FSDP2 accepts only contiguous weights
            weight.data = weight.data.contiguous()
        for block in dict.fromkeys(_blocks(inner)):  # a model may have two names for one block
            if not shared.isdisjoint(block.parameters()):
                fully_shard(block, mesh=mesh, ignored_params=whole)
        fully_shard(part, mesh=mesh, ignored_params=whole)
        for method in calls[part]:
            register_fsdp_forward_method(part, method)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The elements of the outermost lists of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
