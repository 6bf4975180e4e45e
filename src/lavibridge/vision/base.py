"""The contract of a vision model: pictures to latents and back, and what the denoiser predicts.

image  [-1, 1], (3, height, width)
latent (image's latent - shift) * scale, both from the autoencoder's own configuration
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from lavibridge.core.config import Changeable
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import Conditioning, VisionSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import model_identity
from lavibridge.core.low_rank import FoldedLora
from lavibridge.core.text_sides import TextSide


class VisionModel(nn.Module, ABC):
    """A frozen diffusion model; ``backbone`` is the denoiser, the network that takes LoRA."""

    class Config(BaseConfig):
        """Which vision model. What it predicts and its noise schedule are read from its own scheduler."""

        source: Changeable[str]
        """A folder as Diffusers saves it, a shipped miniature's name, a hub id, or `random` (a toy)."""
        revision: Changeable[str | None] = None
        """Branch, tag or commit of a hub id."""
        dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        """Number format of the frozen denoiser; LoRA weights, latents and the autoencoder are float32."""

    lora_targets: tuple[str, ...]
    """Ends of the names of the layers that take LoRA, as published."""

    config: "VisionModel.Config"
    spec: VisionSpec
    backbone: nn.Module
    folded: tuple[FoldedLora, ...] = ()
    """LoRA files that are part of the frozen weights (`read_lora_file`)."""
    autoencoder: Any
    """The frozen network between pictures and latents; its `config` has their scale and shift."""
    scheduler: Any
    """The Diffusers scheduler of the model's own folder; samplers are made from its configuration."""
    prediction_type: str
    """``epsilon``, ``v_prediction``, ``sample`` or ``flow``."""
    unit: int
    """Sides of pictures are multiples of so many pixels."""
    default_size: int
    """Height and width, in pixels, that the model was made for."""
    default_guidance: ClassVar[float] = 7.5
    """The guidance that its published pipeline draws with."""
    published_lr: ClassVar[Mapping[str, float]] = MappingProxyType({})
    """Learning rates of a published bridge into the family, by trained part; empty where there is none."""
    joint_attention: ClassVar[bool] = False
    """Whether text and image attend to each other jointly, so that there are no cross-attention layers."""
    honours_mask: ClassVar[bool] = True
    """Whether padding that a mask hides never changes a prediction; if it does, it is cut off before."""
    alphas: Float[Tensor, " step"]
    """The signal at each training step of the schedule, float32; see diffusion/schedule.py."""
    sigmas: Float[Tensor, " step"]
    """The noise at each."""
    times: Float[Tensor, " step"]
    """The time that the denoiser is told at each."""

    @classmethod
    @abstractmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether this family reads the model at ``source``; looks at its configuration only."""

    def text_side(self) -> TextSide:
        """How the published pipeline reads prompts; ModelError where the family does not say."""
        raise ModelError(
            f"{type(self).__name__} does not say how the pipeline of '{self.config.source}' reads prompts"
        )

    @abstractmethod
    def encode_moments(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Mean and standard deviation of the scaled latents: cache these, and sampling stays random."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Pictures of scaled latents, in about [-1, 1]."""

    @abstractmethod
    def predict(
        self, noisy: Float[Tensor, "batch channel h w"], t: Num[Tensor, " batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch channel h w"]:
        """The denoiser's ``prediction_type`` of noisy latents at its own times ``t``."""

    @abstractmethod
    def attend(
        self, block: str, queries: Float[Tensor, "batch query width"], conditioning: Conditioning
    ) -> Float[Tensor, "batch query width"]:
        """What one cross-attention layer, named as in ``spec.blocks``, makes of its input."""

    @abstractmethod
    def open_blocks(self) -> None:
        """Let `Conditioning.blocks` speak in the cross-attention layers of ``spec.blocks``."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """From now on compute the denoiser's blocks once more in the backward pass, instead of keeping what
        they gave. The gradients stay the same. Raises ModelError where the denoiser cannot."""

    @abstractmethod
    def compile_blocks(self, backend: str) -> None:
        """Have `torch.compile` make faster code of the repeated blocks, when they are first called."""

    @abstractmethod
    def set_attention_backend(self, kernel: str) -> None:
        """Compute attention by `sdpa`, `eager` or `flash`; ModelError where the denoiser cannot."""

    @abstractmethod
    def set_memory_format(self, device: torch.device, is_trained: bool) -> None:
        """Lay out the denoiser's weights for inference or training on ``device``."""

    @abstractmethod
    def reusing(self, threshold: float) -> AbstractContextManager[None]:
        """While it lasts, a step whose first block changes by less than ``threshold``, relative, takes over
        what the other blocks did before. ModelError where the denoiser cannot."""

    @abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of a picture's latents; refuses sizes that do not divide."""

    @abstractmethod
    def flow_shift(self, shape: tuple[int, int, int]) -> float | None:
        """How far sampling latents of ``shape`` is shifted towards noise; None where it is no flow."""

    def identity(self) -> str:
        """What its pictures depend on beside its inputs: files and options, not where they lie."""
        return model_identity(self, self.config, *(each.sha256 for each in self.folded))

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch channel h w"]:
        """Scaled latents drawn from the autoencoder's distribution."""
        mean, std = self.encode_moments(images)
        device = torch.device("cpu") if generator is None else generator.device
        drawn = torch.randn(mean.shape, generator=generator, device=device)
        return mean + std * drawn.to(mean)
