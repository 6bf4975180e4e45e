"""LoRA on a frozen network, through PEFT: inject, read, write, merge.

    y = W x + up(down(dropout(x)))        at first down ~ N(0, 1 / rank^2), up = 0: nothing changes

The scale is 1 at every rank, as in LaVi-Bridge. PEFT drops before the down-projection; the published training
code dropped after the up-projection. With dropout off the two are the same function.

Hu et al. 2021, arXiv 2106.09685. Files are in PEFT's layout: adapter_config.json, adapter_model.safetensors.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from lavibridge.core.config import Config
from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import LowRankPairs
from lavibridge.core.tensors import check_tensors_fit, save_tensors

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

_ADAPTER = "default"
PEFT_PREFIX = "base_model.model."
"""What names begin with in PEFT's files."""
_UP, _DOWN = ".lora_B.weight", ".lora_A.weight"
PEFT_WEIGHTS = "adapter_model.safetensors"


class LoraSettings(Config):
    """The LoRA of one network."""

    rank: int = Field(default=32, ge=1)
    """Rank of every pair; no larger than the smallest layer's width."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of a layer's inputs that the LoRA branch does not see in training."""
    targets: tuple[str, ...] | None = None
    """Ends of the names of the layers that take LoRA; by default the family's published ones,
    in a language model below the layer that the connector reads."""


def inject_lora(
    module: nn.Module,
    settings: LoraSettings,
    targets: Sequence[str],
    name: str,
    unused: Sequence[nn.Module] = (),
) -> nn.Module:
    """Put LoRA into ``module`` in place and return it; ``targets`` are its family's, ``name`` is for errors.

    The family's targets inside of ``unused``, parts whose output nobody reads, are left out; targets that the
    settings name are not. Only the LoRA weights, in float32, need gradients afterwards. Raises ModelError
    where it has LoRA already, a target matches no layer or the rank is larger than a layer.
    """
    if has_lora(module):
        raise ModelError(f"the {name} has LoRA already, which new LoRA would replace: load the model anew")
    names = targets if settings.targets is None else settings.targets
    matched = _matching(module, names, name)
    if settings.targets is None and unused:
        idle = {id(part) for block in unused for part in block.modules()}
        matched = {key: layer for key, layer in matched.items() if id(layer) not in idle}
        if not matched:
            raise ModelError(
                f"LoRA would change nothing that the connector reads of the {name}, whose blocks all come "
                "after it: read a higher layer, or leave its LoRA out (null in a recipe, None in Python)"
            )
        names = list(matched)
    _check_rank(matched, settings.rank, name)
    import peft  # takes seconds to import, and many bridges have no LoRA

    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank,
        lora_dropout=settings.dropout,
        init_lora_weights="gaussian",
        target_modules=list(names),
        bias="none",
    )
    peft.inject_adapter_in_model(config, module, adapter_name=_ADAPTER)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parameter in lora_parameters(module).values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return module


def lora_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """LoRA weights by their names in PEFT's files, such as ``base_model.model.block.q.lora_A.weight``."""
    marks = tuple(f"{side}.{_ADAPTER}." for side in ("lora_A", "lora_B"))
    return {
        PEFT_PREFIX + name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in module.named_parameters()
        if any(mark in name for mark in marks)
    }


def lora_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the LoRA weights, by their names in PEFT's files."""
    return {name: value.detach().clone() for name, value in lora_parameters(module).items()}


def lora_pairs(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Copies of (up, down) of each layer with LoRA, by the layer's name."""
    return lora_pairs_of_state(lora_state(module))


def lora_pairs_of_state(state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(up, down) of each layer, by the layer's name, of weights by the names of PEFT's files."""
    names = [name.removesuffix(_DOWN) for name in state if name.endswith(_DOWN)]
    lacking = [name for name in names if name + _UP not in state]
    if lacking or len(names) * 2 != len(state):
        raise ModelError(f"the LoRA has unpaired weights, such as {(lacking or sorted(state))[0]}")
    return {name.removeprefix(PEFT_PREFIX): (state[name + _UP], state[name + _DOWN]) for name in names}


def lora_state_of_pairs(pairs: LowRankPairs) -> dict[str, Tensor]:
    """(up, down) of layers by the names of PEFT's files."""
    state: dict[str, Tensor] = {}
    for name, (up, down) in pairs.items():
        state |= {f"{PEFT_PREFIX}{name}{_DOWN}": down, f"{PEFT_PREFIX}{name}{_UP}": up}
    return state


def load_lora_state(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Put weights into the injected LoRA; every name and shape must fit."""
    own = lora_parameters(module)
    _need_unmerged(module, "replaced")
    check_tensors_fit(own, state, f"the LoRA of the {name}")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(state[key])


def save_lora(module: nn.Module, folder: Path, source: str) -> None:
    """Write the LoRA as a folder that PEFT reads; ``source`` names the frozen model in it."""
    config: LoraConfig = module.peft_config[_ADAPTER]  # type: ignore[index]
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # a set until now: files should not vary by chance
    config.base_model_name_or_path = source
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_tensors(lora_state(module), folder / PEFT_WEIGHTS)


def save_lora_pairs(pairs: LowRankPairs, folder: Path, source: str) -> None:
    """Write (up, down) of layers, of any ranks, as a folder that PEFT reads."""
    import peft

    ranks = {f"^{re.escape(name)}": up.shape[1] for name, (up, _) in pairs.items()}
    most = max(ranks.values())
    config = peft.LoraConfig(
        r=most,
        lora_alpha=most,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules="|".join(map(re.escape, sorted(pairs))),  # whole names, where a list means their ends
        inference_mode=True,
        base_model_name_or_path=source,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_tensors(lora_state_of_pairs(pairs), folder / PEFT_WEIGHTS)


def lora_scale_of_peft_config(config: Mapping[str, Any], layer: str) -> tuple[int, float]:
    """(rank, scale) of a layer by the settings of PEFT's files."""
    from peft.utils.other import get_pattern_key

    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    rank = int(ranks.get(get_pattern_key(ranks, layer), config["r"]))
    common = config.get("lora_alpha", config.get("alpha"))  # LoHa and LoKr call it alpha
    alpha = float(alphas.get(get_pattern_key(alphas, layer), common))
    return rank, alpha / (sqrt(rank) if config.get("use_rslora") else rank)


def merge_lora(module: nn.Module) -> None:
    """Add the LoRA into the weights below it: the same function in fewer operations, for drawing only.

    Quantised weights stay as they are, with the LoRA beside them: there are too few bits to take it in. What
    is merged already stays so.
    """
    for layer in _lora_layers(module):
        if layer.get_base_layer().weight.is_floating_point() and not layer.merged:
            layer.merge(adapter_names=[_ADAPTER])


def unmerge_lora(module: nn.Module) -> None:
    """Take the LoRA out of the weights again; they come back but for rounding."""
    for layer in _lora_layers(module):
        if layer.merged:
            layer.unmerge()


@contextmanager
def disable_adapters(module: nn.Module) -> Iterator[None]:
    """The network without its LoRA: before the first step, when that adds nothing, the same in less time."""
    layers = _lora_layers(module)
    _need_unmerged(module, "left out")
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def active_lora(module: nn.Module) -> dict[str, list[Any]]:
    """For each layer with LoRA: the scales of its adapters that speak, and those that are merged."""
    return {
        name: [
            {adapter: layer.scaling[adapter] for adapter in layer.active_adapters},
            list(layer.merged_adapters),
        ]
        for name, layer in _named_lora_layers(module)
        if not layer.disable_adapters
    }


def is_lora_active(module: nn.Module) -> bool:
    """Whether the injected LoRA has its effect: another tool's adapter may have switched it off."""
    return all(
        _ADAPTER in (*layer.active_adapters, *layer.merged_adapters) and not layer.disable_adapters
        for layer in _lora_layers(module)
        if _ADAPTER in layer.lora_A
    )


def lora_settings_of(module: nn.Module) -> LoraSettings | None:
    """The settings of the injected LoRA, its targets named; None where there is none."""
    if not has_lora(module):
        return None
    config: LoraConfig = module.peft_config[_ADAPTER]  # type: ignore[index]
    targets = tuple(sorted(config.target_modules))
    return LoraSettings(rank=config.r, dropout=config.lora_dropout, targets=targets)


def has_lora(module: nn.Module) -> bool:
    """Whether LoRA was injected."""
    return bool(_lora_layers(module))


def is_lora_merged(module: nn.Module) -> bool:
    """Whether LoRA is added into the weights below it."""
    return any(layer.merged for layer in _lora_layers(module))


def _lora_layers(module: nn.Module) -> list["LoraLayer"]:
    return [layer for _, layer in _named_lora_layers(module)]


def _named_lora_layers(module: nn.Module) -> list[tuple[str, "LoraLayer"]]:
    """The layers with LoRA by name; there are none before anything has imported PEFT."""
    if "peft" not in sys.modules:
        return []
    from peft.tuners.lora import LoraLayer

    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLayer)]


def _need_unmerged(module: nn.Module, done: str) -> None:
    if is_lora_merged(module):
        raise ModelError(f"LoRA that is merged into the weights cannot be {done}: call unmerge() first")


def _matching(module: nn.Module, targets: Sequence[str], name: str) -> dict[str, nn.Module]:
    """The layers whose names end, at a dot, in one of the targets."""
    layers = {key: value for key, value in module.named_modules() if isinstance(value, nn.Linear | nn.Conv2d)}
    matched: dict[str, nn.Module] = {}
    for target in targets:
        found = {key: value for key, value in layers.items() if f".{key}".endswith(f".{target}")}
        if not found:
            raise ModelError(
                f"the LoRA target '{target}' matches no layer of the {name}; layers here: "
                f"{', '.join(list(layers)[:: max(1, len(layers) // 4)][:4])}"
            )
        matched |= found
    if not matched:
        raise ModelError(f"the LoRA of the {name} has no targets: name some, or leave `targets` out")
    return matched


def _check_rank(layers: Mapping[str, nn.Module], rank: int, name: str) -> None:
    widths = {
        key: min(layer.in_features, layer.out_features)
        if isinstance(layer, nn.Linear)
        else min(layer.in_channels, layer.out_channels)
        for key, layer in layers.items()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    small = [f"{key} ({width})" for key, width in widths.items() if width < rank]
    if small:
        raise ModelError(
            f"LoRA rank {rank} is larger than {len(small)} of {len(widths)} layers of the {name}, such as "
            f"{', '.join(small[:3])}: use rank {min(widths.values())} or less"
        )
