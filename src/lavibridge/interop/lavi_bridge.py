"""Imports LaVi-Bridge's released files: two lists of LoRA weights without names, and the adapter's folder.

    lora_vis.pt, lora_text.pt     pickled lists  up, down, up, down, ...   in the order of `published_order`
    adapter/                      config.json, diffusion_pytorch_model.safetensors (or .bin)

The lists do not name the layer of a pair, and the published code checks nothing. This importer rejects the
files unless the count and every shape fit. It applies the settings of the published training:

    U-Net (with T5 or Llama-2)    77 tokens, padding seen
    PixArt (with T5)              120 tokens, masks

Zhao et al. 2024, arXiv 2403.07860.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError
from lavibridge.core.files import read_json
from lavibridge.core.low_rank import low_rank_shapes
from lavibridge.core.weight_files import read_named_weights, read_weight_list
from lavibridge.interop.compatibility import check_width_compatibility, load_compatible_weights
from lavibridge.interop.published_order import published_order
from lavibridge.lora import LoraSettings
from lavibridge.vision.base import VisionModel

_LISTS = {"language": "lora_text.pt", "vision": "lora_vis.pt"}
_ADAPTER_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_U_NET: Mapping[str, Any] = {"max_tokens": 77, "see_padding": True}
_TRANSFORMER: Mapping[str, Any] = {"max_tokens": 120, "see_padding": False}
_DROPOUT = 0.1


@dataclass(frozen=True, kw_only=True)
class _PublishedPairs:
    """One list: the pair (up, down) of each layer; all pairs have the same rank."""

    path: Path
    pairs: tuple[tuple[Tensor, Tensor], ...]
    rank: int

    @property
    def has_convolutions(self) -> bool:
        """Whether it belongs to a U-Net; no other model has convolutions with LoRA."""
        return any(up.ndim == 4 for up, _ in self.pairs)


def import_lavi_bridge(
    folder: Path,
    language: Mapping[str, Any],
    vision: Mapping[str, Any] | VisionModel,
    connector: Mapping[str, Any],
) -> Bridge:
    """Load a released folder as a bridge between the two models that it was trained with.

    Options in ``language`` and ``connector`` override those of the published training. Raises ModelError if
    the files do not fit the models, and, before loading any model, if files are damaged or missing.
    """
    _check_complete(folder)
    lists = {side: _read_pairs(folder / name) for side, name in _LISTS.items()}
    sizes = _sizes(folder / "adapter")
    weights = _adapter_weights(folder / "adapter")
    published = _U_NET if lists["vision"].has_convolutions else _TRANSFORMER
    bridge = Bridge.compose(
        language={**published, **language},
        vision=vision,
        connector={
            "kind": "lavi",
            "width": sizes["int_dim"],
            "dropout": _DROPOUT,
            "read": "last",
            **connector,
        },
        language_lora=None,
        vision_lora=None,
    )
    check_width_compatibility(bridge, sizes["in_dim"], sizes["out_dim"], folder)
    load_compatible_weights(bridge.connector, weights, folder / "adapter")
    backbones = {"language": bridge.language.backbone, "vision": bridge.vision.backbone}
    counts = {side: len(published_order(backbone)) for side, backbone in backbones.items()}
    for side, model in (("language", bridge.language), ("vision", bridge.vision)):
        _check_count(lists[side], side, counts)
        state = _named_state(model.backbone, lists[side], f"{side} model")
        settings = LoraSettings(rank=lists[side].rank, dropout=_DROPOUT)
        lora.inject_lora(model.backbone, settings, model.lora_targets, f"{side} model")
        wide = {name: value.float() for name, value in state.items()}
        lora.load_lora_state(model.backbone, wide, f"{side} model")
    return bridge


def _read_pairs(path: Path) -> _PublishedPairs:
    """Read a list, with all checks that need no model."""
    values = read_weight_list(path)
    if not values or len(values) % 2:
        raise ModelError(f"{path} must hold pairs of up and down, found {len(values)} tensors")
    pairs = tuple(zip(values[::2], values[1::2], strict=True))
    for index, (up, down) in enumerate(pairs):
        if up.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[1] != down.shape[0]:
            raise ModelError(
                f"{path}: pair {index} is not LoRA: up is {tuple(up.shape)} and down is {tuple(down.shape)}"
            )
    ranks = sorted({up.shape[1] for up, _ in pairs})
    if len(ranks) > 1:
        raise ModelError(f"{path} must hold pairs of one rank, found ranks {', '.join(map(str, ranks))}")
    return _PublishedPairs(path=path, pairs=pairs, rank=ranks[0])


def _named_state(network: nn.Module, published: _PublishedPairs, name: str) -> dict[str, Tensor]:
    """Name the pairs as in PEFT's files. Raises ModelError unless every shape fits its layer."""
    layers = published_order(network)
    for (layer_name, layer), (up, down) in zip(layers.items(), published.pairs, strict=True):
        for tensor, shape, side in zip(
            (up, down), low_rank_shapes(layer, published.rank), ("up", "down"), strict=True
        ):
            if tuple(tensor.shape) != shape:
                raise ModelError(
                    f"{published.path} was trained with another {name}: at {layer_name}, {side} has shape "
                    f"{tuple(tensor.shape)} in the file, but this model needs {shape}"
                )
    return lora.lora_state_of_pairs(dict(zip(layers, published.pairs, strict=True)))


def _check_complete(folder: Path) -> None:
    needed = (*_LISTS.values(), "adapter/config.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        here = ", ".join(sorted(each.name for each in folder.iterdir())) if folder.is_dir() else "no folder"
        raise ModelError(
            f"{folder} lacks {', '.join(missing)}; found {here or 'nothing'}. If the published training code "
            "wrote s1000_lora_vis.pt, s1000_lora_text.pt and s1000_adapter/, rename them"
        )


def _sizes(folder: Path) -> dict[str, int]:
    """The adapter's widths by their published names."""
    config = read_json(folder / "config.json")
    sizes: dict[str, int] = {}
    for name in ("in_dim", "int_dim", "out_dim"):
        found = config.get(name) if isinstance(config, dict) else None
        if not isinstance(found, int):
            raise ModelError(f"{folder / 'config.json'}: {name} must be a whole number, found {found}")
        sizes[name] = found
    return sizes


def _adapter_weights(folder: Path) -> dict[str, Tensor]:
    for name in _ADAPTER_WEIGHTS:
        if (folder / name).is_file():
            return read_named_weights(folder / name)
    raise ModelError(f"{folder} holds neither {' nor '.join(_ADAPTER_WEIGHTS)}")


def _check_count(published: _PublishedPairs, side: str, counts: Mapping[str, int]) -> None:
    if len(published.pairs) == counts[side]:
        return
    (other,) = counts.keys() - {side}
    if not counts[side]:
        advice = "it has no layers that LaVi-Bridge trains: choose a model that LaVi-Bridge supports"
    elif len(published.pairs) == counts[other]:
        advice = f"it fits the {other} model: did you swap {_LISTS[side]} and {_LISTS[other]}?"
    else:
        advice = "choose the model that it was trained with"
    raise ModelError(
        f"{published.path} holds {len(published.pairs)} pairs, but the {side} model takes {counts[side]}: "
        f"{advice}"
    )
