"""What an adapter file does to the weight W of a layer, for each method that such files use.

    LoRA    D = up down                    a convolution's kernel is in down
    LoHa    D = (a1 b1) * (a2 b2)          * is element by element; t1, t2: a convolution's kernels (Tucker)
    LoKr    D = kron(w1, w2)
            W <- W + strength D
    DoRA    W <- m V / |V|,  V = W + strength D            with D of any of these

DoRA's norm is over each output's weights (PEFT), or over each input's (LyCORIS); the shape of m tells which.
The strength is inside of the norm, as in PEFT and Diffusers. Files apply in order: the norm is that of a
weight which contains the files before.

Hu et al. 2021 (LoRA), arXiv 2106.09685; Hyeon-Woo et al. 2021 (LoHa's product), arXiv 2108.06098; Yeh et al.
2023 (LyCORIS: LoHa, LoKr), arXiv 2309.14859; Liu et al. 2024 (DoRA), arXiv 2402.09353.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import LowRankPairs, named_layers

Factors: TypeAlias = Mapping[str, Tensor]
"""The float32 tensors of one layer's change, by the names below; they include the file's own scale."""
UP, DOWN = "lora_up", "lora_down"
HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
HADA_KERNELS = ("hada_t1", "hada_t2")
KRON = ("lokr_w1", "lokr_w2")
MAGNITUDE = "magnitude"
"""DoRA's m, in a shape that broadcasts with the weight: (out, 1, ...) or (1, in, ...)."""


@dataclass(frozen=True, kw_only=True)
class FoldedLora:
    """A LoRA file that was folded into the frozen weights of a network, which its folder does not contain."""

    name: str
    """The file's name."""
    sha256: str
    """The hash of the file, and of PEFT's settings beside it."""
    strength: float
    """The factor on the changes that the file describes."""
    changes: Mapping[str, Factors]
    """The changes at strength 1, by layer."""

    @property
    def identity(self) -> str:
        """Identifies the change of the weights."""
        return lora_identity(self.sha256, self.strength)

    @property
    def is_plain(self) -> bool:
        """Whether every layer has plain LoRA."""
        return all(factors.keys() == {UP, DOWN} for factors in self.changes.values())

    @property
    def pairs(self) -> LowRankPairs:
        """(up, down) of each layer at strength 1, of plain LoRA."""
        return {name: (factors[UP], factors[DOWN]) for name, factors in self.changes.items()}


def lora_identity(sha256: str, strength: float) -> str:
    """Identify the changes of a file at a strength."""
    return sha256 if strength == 1 else f"{sha256} x {strength}"


def weight_delta(factors: Factors) -> Tensor:
    """Return D, with its kernel flattened or not. Raises RuntimeError if shapes do not fit together."""
    if UP in factors:
        return factors[UP].flatten(1) @ factors[DOWN].flatten(1)
    if KRON[0] in factors:
        left, right = (factors[name] for name in KRON)
        return torch.kron(left.reshape(*left.shape, *(1,) * (right.ndim - left.ndim)), right)
    sides = [(factors[HADA[0]], factors[HADA[1]]), (factors[HADA[2]], factors[HADA[3]])]
    if HADA_KERNELS[0] not in factors:
        return (sides[0][0] @ sides[0][1]) * (sides[1][0] @ sides[1][1])
    (first, second) = (
        tucker(factors[kernel], *side) for kernel, side in zip(HADA_KERNELS, sides, strict=True)
    )
    return first * second


def tucker(kernel: Tensor, outer: Tensor, inner: Tensor) -> Tensor:
    """Return a convolution's weight from (rank, rank, kh, kw), (rank, out) and (rank, in)."""
    return torch.einsum("abhw,ao,bi->oihw", kernel, outer, inner).contiguous()


def changed_weight(weight: Tensor, factors: Factors, strength: float) -> Tensor:
    """Compute the changed weight in float32 and return it in the weight's own format."""
    delta = weight_delta({name: value.to(weight.device) for name, value in factors.items()})
    made = weight.float() + strength * delta.reshape(weight.shape)
    magnitude = factors.get(MAGNITUDE)
    if magnitude is not None:
        axes = [axis for axis, size in enumerate(magnitude.shape) if size == 1]
        norm = torch.linalg.vector_norm(made, dim=axes, keepdim=True)
        made = made * (magnitude.to(weight.device) / norm.clamp_min(torch.finfo(torch.float32).tiny))
    return made.to(weight.dtype)


@torch.no_grad()
def fold_lora(network: nn.Module, folded: FoldedLora) -> None:
    """Change the layers' weights: all, or none with a ModelError."""
    own = named_layers(network)
    wrong = [name for name in folded.changes if name not in own or not own[name].weight.is_floating_point()]
    if wrong:
        raise ModelError(
            f"{len(wrong)} layers, such as {wrong[0]}, are missing or quantised, so {folded.name} cannot be "
            "added: load the model that it was made for, without `quantize`"
        )
    for name, factors in folded.changes.items():
        weight = own[name].weight
        weight.copy_(changed_weight(weight, factors, folded.strength))
