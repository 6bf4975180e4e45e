"""Turns the tensors that a LoRA file has for one layer into the factors of its change.

    lora_up / lora_down / lora_mid, lora_A / lora_B, ...       LoRA
    lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, ..., lokr_t2       LoKr
    hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b, hada_t1, _t2   LoHa
    dora_scale, lora_magnitude_vector                          DoRA, beside any of these
    alpha                                                      its scale is alpha / rank

The factors include the file's scale. LoKr whose two matrices are both whole has no rank and no scale.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lavibridge.bridge.lora_scale import LoraScale, refuse_unknown_lora_method
from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import Layer, low_rank_shapes
from lavibridge.core.weight_changes import (
    DOWN,
    HADA,
    HADA_KERNELS,
    KRON,
    MAGNITUDE,
    UP,
    Factors,
    tucker,
    weight_delta,
)

_ROLES = {
    r"(lora_A|lora_down|lora\.down|lora_linear_layer\.down|down)(\.\w+)?\.weight": DOWN,
    r"(lora_B|lora_up|lora\.up|lora_linear_layer\.up|up)(\.\w+)?\.weight": UP,
    r"lora_mid\.weight": "lora_mid",
    r"(lokr_w[12](_[ab])?|lokr_t2|hada_w[12]_[ab]|hada_t[12])(\.\w+)?": None,
    r"lora_magnitude_vector(\.\w+)?(\.weight)?": MAGNITUDE,
    r"dora_scale": "dora_scale",
    r"(lora\.)?alpha": "alpha",
}
"""The rest of a key after its layer's name -> its role, or None: its own name without PEFT's name of the
adapter, which \\w+ stands for."""
_METHODS = {"lora": {UP, DOWN}, "lokr": set(KRON), "hada": set(HADA)}

_PEFT_NAMES = {"lora": "LORA", "lokr": "LOKR", "hada": "LOHA"}


def lora_role(file: object, layer: str, rest: str) -> str:
    """Return the role of a key. Raises ModelError for a method that is not supported."""
    for form, role in _ROLES.items():
        if re.fullmatch(form, rest):
            return rest.partition(".")[0] if role is None else role
    raise refuse_unknown_lora_method(file, layer, rest)


def layer_factors(
    tensors: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale
) -> dict[str, Tensor]:
    """Return the factors of one layer's change, in float32, from its tensors by role.

    Raises ModelError if tensors are missing, do not fit the layer, mix methods or are not finite.
    """
    found = {role: tensor.float() for role, tensor in tensors.items()}
    methods = {role.partition("_")[0] for role in found} & _METHODS.keys()
    if len(methods) != 1:
        raise ModelError(
            f"{file_scale.path} has {' and '.join(sorted(found))} for '{name}', which is no whole change of "
            "a layer: use another copy of the file"
        )
    (method,) = methods
    file_scale.check_method(name, _PEFT_NAMES[method], MAGNITUDE in found)
    make = {"lora": _lora, "lokr": _lokr, "hada": _loha}[method]
    factors = make(found, name, layer, file_scale)
    magnitude = _magnitude(found, name, layer, file_scale)
    made: dict[str, Tensor] = {key: value.contiguous() for key, value in factors.items()}
    if magnitude is not None:
        made[MAGNITUDE] = magnitude
    if not all(bool(value.isfinite().all()) for value in made.values()):
        raise ModelError(
            f"{file_scale.path} holds NaN or infinite values for '{name}': use another copy of the file"
        )
    return made


def _lora(found: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale) -> Factors:
    if not {UP, DOWN} <= found.keys():
        raise ModelError(
            f"{file_scale.path}: {', '.join(sorted(found))} of '{name}' has no partner; LoRA needs a pair of "
            "up and down"
        )
    up, down = found[UP], found[DOWN]
    rank = len(down)
    if "lora_mid" in found:
        down = _through(found["lora_mid"], down)
    shapes = low_rank_shapes(layer, rank)
    if not all(_fits(tensor, shape) for tensor, shape in zip((up, down), shapes, strict=True)):
        raise ModelError(
            f"{file_scale.path} does not fit '{name}': up and down have shapes {tuple(up.shape)} and "
            f"{tuple(down.shape)}, this model needs {shapes[0]} and {shapes[1]}"
        )
    up = up * _scale(found, name, layer, file_scale, rank)
    return {UP: up.reshape(shapes[0]), DOWN: down.reshape(shapes[1])}


def _lokr(found: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale) -> Factors:
    ranks = [len(found[side]) for side in ("lokr_w1_b", "lokr_w2_b") if side in found]
    has_scale = bool(ranks) or file_scale.is_peft
    scale = _scale(found, name, layer, file_scale, ranks[-1] if ranks else 1) if has_scale else 1.0
    try:
        first = found["lokr_w1"] if "lokr_w1" in found else found["lokr_w1_a"] @ found["lokr_w1_b"]
        if "lokr_w2" in found:
            second = found["lokr_w2"]
        elif "lokr_t2" in found:
            second = tucker(found["lokr_t2"], found["lokr_w2_a"], found["lokr_w2_b"])
        else:
            second = found["lokr_w2_a"] @ found["lokr_w2_b"]
    except (KeyError, RuntimeError) as error:
        raise _misfit(found, name, layer, file_scale) from error
    return _checked({KRON[0]: first * scale, KRON[1]: second}, found, name, layer, file_scale)


def _loha(found: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale) -> Factors:
    if not set(HADA) <= found.keys() or len(found.keys() & set(HADA_KERNELS)) == 1:
        raise _misfit(found, name, layer, file_scale)
    factors = {side: found[side] for side in (*HADA, *HADA_KERNELS) if side in found}
    factors[HADA[0]] = factors[HADA[0]] * _scale(found, name, layer, file_scale, len(found[HADA[1]]))
    return _checked(factors, found, name, layer, file_scale)


def _checked(
    factors: Factors, found: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale
) -> Factors:
    """Return the factors. Raises ModelError if their product is no change of the layer's weight."""
    try:
        delta = weight_delta({side: value.to("meta") for side, value in factors.items()})
    except RuntimeError as error:
        raise _misfit(found, name, layer, file_scale) from error
    if delta.shape[0] != layer.weight.shape[0] or delta.numel() != layer.weight.numel():
        raise _misfit(found, name, layer, file_scale)
    return factors


def _scale(found: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale, rank: int) -> float:
    """Return alpha / rank, with alpha from the layer's own tensor or from the file's settings."""
    if "alpha" not in found:
        return file_scale.scale(name, layer, rank)
    alpha = found["alpha"]
    if alpha.numel() != 1:
        raise ModelError(
            f"{file_scale.path}: the alpha of '{name}' must be one number, found shape {tuple(alpha.shape)}"
        )
    return float(alpha) / rank


def _magnitude(found: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale) -> Tensor | None:
    """Return DoRA's magnitude in a shape that broadcasts with the layer's weight; None without DoRA."""
    outer, inner = layer.weight.shape[:2]
    ones = (1,) * (layer.weight.ndim - 2)
    vector, scale = found.get(MAGNITUDE), found.get("dora_scale")
    if vector is None and scale is None:
        return None
    if vector is not None:  # PEFT's: one number for each output
        given, is_by_output = vector, True
    else:
        assert scale is not None
        given, is_by_output = scale, scale.ndim == 1 or len(scale) != 1 or outer == 1
    count = outer if is_by_output else inner
    if given.numel() != count:
        raise ModelError(
            f"{file_scale.path} does not fit '{name}': DoRA's magnitude has shape {tuple(given.shape)}, this "
            f"model needs {outer} outputs or {inner} inputs"
        )
    return given.reshape(-1, 1, *ones) if is_by_output else given.reshape(1, -1, *ones)


def _misfit(found: Mapping[str, Tensor], name: str, layer: Layer, file_scale: LoraScale) -> ModelError:
    shapes = ", ".join(f"{role} {tuple(tensor.shape)}" for role, tensor in sorted(found.items()))
    return ModelError(
        f"{file_scale.path} does not fit '{name}': it has {shapes}, and this model's weight is "
        f"{tuple(layer.weight.shape)}"
    )


def _through(mid: Tensor, down: Tensor) -> Tensor:
    """Multiply the two factors of a convolution's down (Tucker); return ``mid`` if they do not match."""
    if mid.ndim != 4 or down.shape[2:] != (1, 1) or mid.shape[1] != len(down):
        return mid
    return torch.einsum("mnhw,ni->mihw", mid, down[:, :, 0, 0])


def _fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the shapes match up to trailing sides of 1: files may store a 1 x 1 convolution as linear."""
    longer, shorter = sorted((tuple(tensor.shape), shape), key=len, reverse=True)
    return longer[: len(shorter)] == shorter and set(longer[len(shorter) :]) <= {1}
