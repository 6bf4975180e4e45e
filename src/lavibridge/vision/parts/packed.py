"""The shared base of the families whose denoiser reads packed latents.

latent (channel, h, w) -> patches of 2x2 as tokens (h w / 4, 4 channel), with their row and column
"""

from abc import abstractmethod
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.vision.hf import DiffusersModel


class PackedModel(DiffusersModel):
    """A transformer over packed latents; a family implements its call in `_call_packed`."""

    context_field = "joint_attention_dim"

    @abstractmethod
    def _call_packed(
        self,
        packed: Float[Tensor, "batch patch channel"],
        size: tuple[int, int],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch patch channel"]:
        """Call the denoiser with patches of ``size`` rows and columns; ``t`` is in [0, 1]."""

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        patches = functional.pixel_unshuffle(noisy, self.patch)
        rows, columns = patches.shape[2:]
        output = self._call_packed(
            patches.flatten(2).transpose(1, 2),
            (rows, columns),
            t / self.scheduler.config.num_train_timesteps,
            conditioning,
        )
        return functional.pixel_shuffle(output.transpose(1, 2).unflatten(2, (rows, columns)), self.patch)

    def _default_size(self) -> int:
        return int(self.autoencoder.config.sample_size)

    def _patch(self) -> int:
        return _packing(self.backbone.config, self._channels())

    def _check(self, denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> None:
        latents = int(autoencoder.get("latent_channels") or autoencoder["z_dim"])
        packed = int(denoiser["in_channels"])
        if _packing(denoiser, latents) ** 2 * latents != packed:
            raise ModelError(
                f"the denoiser of '{self.config.source}' takes {packed} channels, which are no square "
                f"patches of {latents} latent channels: it takes an image as an additional input; choose a "
                "text-to-image model"
            )


def patch_places(size: tuple[int, int], axes: int, device: torch.device) -> Float[Tensor, "patch axis"]:
    """Return (0, row, column, 0, ...) of each patch, on ``axes`` axes."""
    rows, columns = size
    places = torch.zeros(rows, columns, axes, device=device)
    places[..., 1] = torch.arange(rows, device=device)[:, None]
    places[..., 2] = torch.arange(columns, device=device)
    return places.flatten(0, 1)


def _packing(denoiser: Mapping[str, Any], channels: int) -> int:
    """Return the side of the patch of latents behind one token."""
    return isqrt(int(denoiser["in_channels"]) // channels)
