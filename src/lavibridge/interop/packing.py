"""Packs a language model's features into one tensor of prompt embeddings for a pipeline, and unpacks them.

column   0     1                 then                  then                    last
         mask  passthrough mask  layers of the token   context-free layers     passthrough tokens
                                 (layer * width)       (if the reading has)    (if there are any)
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import ReadingSpec, TextFeatures, TextSpec


def pack_features(features: TextFeatures) -> Float[Tensor, "batch token column"]:
    """Pack features as prompt embeddings, padded to the tokens or passthrough tokens, whichever are more."""
    beside, mask = features.passthrough_tokens, features.passthrough_mask
    length = max(features.mask.shape[1], 0 if beside is None else beside.shape[1])
    no_mask = torch.zeros_like(features.mask)
    parts = [
        features.mask[..., None].to(features.hidden),
        (no_mask if mask is None else mask)[..., None].to(features.hidden),
        features.hidden.transpose(1, 2).flatten(2),
    ]
    if features.context_free is not None:
        parts.append(features.context_free.transpose(1, 2).flatten(2))
    if beside is not None:
        parts.append(beside.to(features.hidden))
    return torch.cat([functional.pad(part, (0, 0, 0, length - part.shape[1])) for part in parts], dim=-1)


def packed_columns(reading: ReadingSpec, text: TextSpec) -> int:
    """Number of columns of packed features."""
    layers = len(reading.layers) * (2 if reading.context_free else 1)
    return 2 + layers * text.width + (text.passthrough or 0)


def unpack_features(
    packed: Float[Tensor, "batch token column"], reading: ReadingSpec, text: TextSpec
) -> TextFeatures:
    """Unpack features; tokens and passthrough tokens stay padded to equal lengths."""
    count = len(reading.layers)
    sizes = [
        1,
        1,
        count * text.width,
        count * text.width if reading.context_free else 0,
        text.passthrough or 0,
    ]
    mask, passthrough_mask, hidden, alone, beside = packed.split(sizes, dim=-1)
    return TextFeatures(
        hidden=hidden.unflatten(2, (count, text.width)).transpose(1, 2),
        mask=mask[..., 0] > 0.5,
        context_free=alone.unflatten(2, (count, text.width)).transpose(1, 2)
        if reading.context_free
        else None,
        passthrough_tokens=beside if text.passthrough else None,
        passthrough_mask=passthrough_mask[..., 0] > 0.5 if text.passthrough else None,
    )
