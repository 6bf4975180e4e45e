"""The contract of a vision model: it encodes and decodes images, and its denoiser predicts.

image  [-1, 1], (3, height, width)
latent (image's latent - shift) * scale, with the autoencoder's own shift and scale
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Num
from pydantic import AfterValidator
from torch import Tensor, nn

from lavibridge.core.config import Changeable
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import Conditioning, VisionSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import model_identity
from lavibridge.core.paths import expand_path
from lavibridge.core.placement import Placement, Quantization
from lavibridge.core.text_encoders import PipelineTextEncoders
from lavibridge.core.weight_changes import FoldedLora
from lavibridge.diffusion.guidance import apply_guidance
from lavibridge.diffusion.schedule import StepSpacing


class LoraFile(BaseConfig):
    """A LoRA file that becomes part of the frozen denoiser."""

    path: Annotated[Path, AfterValidator(lambda path: expand_path(path).absolute())]
    """The file, or the folder of a PEFT adapter."""
    strength: float = 1.0
    """Factor on the file's changes."""


class VisionModel(nn.Module, ABC):
    """A frozen diffusion model; ``backbone`` is the denoiser, the network that takes LoRA."""

    class Config(BaseConfig):
        """Which vision model. Its scheduler states the prediction type and the noise schedule."""

        source: Changeable[str]
        """A folder that Diffusers saved, a single-file checkpoint (.safetensors), a denoiser in GGUF, a
        shipped miniature's name, a hub id, or `random` (a toy)."""
        revision: Changeable[str | None] = None
        """Branch, tag or commit of a hub id."""
        config: Changeable[str | None] = None
        """Where the configurations and tokenizers of a single-file checkpoint are: a folder, a hub id, or a
        published model's name, such as sdxl. None: a folder beside the file with the file's name, or else the
        published model that the file's tensors show."""
        variant: str | None = None
        """Number format in the names of a folder's weights, such as fp16 (model.fp16.safetensors)."""
        dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        """Number format of the frozen denoiser; LoRA weights, latents and the autoencoder are float32."""
        quantize: Quantization | None = None
        """Load the denoiser's linear layers in 8 or 4 bits (needs the extra `quantize`); LoRA beside them
        stays float32."""
        lora_files: Changeable[tuple[LoraFile, ...]] = ()
        """LoRA files of other tools (LoRA, DoRA, LoHa, LoKr), each a `path` with a `strength`, that are added
        to the frozen denoiser, in order, before the bridge's own LoRA."""

    lora_targets: tuple[str, ...]
    """Suffixes of the names of the layers that take LoRA, as published."""

    config: "VisionModel.Config"
    spec: VisionSpec
    backbone: nn.Module
    placement: Placement = Placement()
    """Where the denoiser's frozen weights lie, and in which form."""
    folded: tuple[FoldedLora, ...] = ()
    """LoRA files in the frozen weights: those of ``config.lora_files`` and of `read_lora_file`."""
    autoencoder: Any
    """The frozen network between images and latents; its `config` holds their scale and shift."""
    scheduler: Any
    """The Diffusers scheduler of the model's own folder; samplers take over its configuration."""
    prediction_type: str
    """``epsilon``, ``v_prediction``, ``sample`` or ``flow``."""
    unit: int
    """Height and width of an image are multiples of this number of pixels."""
    default_size: int
    """Height and width, in pixels, that the model was trained for."""
    default_guidance_scale: float = 7.5
    """The default guidance scale of its published pipeline; 1 means no guidance."""
    step_spacing: StepSpacing | None = None
    """How its published pipeline spaces the steps of a flow. None: as is usual for its scheduler."""
    published_lr: ClassVar[Mapping[str, float]] = MappingProxyType({})
    """Learning rates by trained part, from a published bridge to this family or from a published script that
    trains LoRA for it; empty if there is neither."""
    joint_attention: ClassVar[bool] = False
    """Whether no cross-attention layer stands alone: text and image share joint attention, or the layer needs
    more than its input and the text, such as positions."""
    honours_mask: ClassVar[bool] = True
    """Whether the denoiser takes a mask and ignores masked tokens; if not, padding is removed beforehand."""
    alphas: Float[Tensor, " step"]
    """Scale of the signal at each training step of the schedule, float32; see diffusion/schedule.py."""
    sigmas: Float[Tensor, " step"]
    """Scale of the noise at each training step."""
    times: Float[Tensor, " step"]
    """The timestep that the denoiser takes at each training step."""

    @classmethod
    @abstractmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether this family can load the model at ``source``; reads its configuration only."""

    def pipeline_text_encoders(self) -> PipelineTextEncoders:
        """Describe the published pipeline's text encoders. Raises ModelError if the family does not."""
        raise ModelError(
            f"{type(self).__name__} does not describe the text encoders of '{self.config.source}': choose a "
            "family that does, such as sd or sd3"
        )

    @abstractmethod
    def encode_moments(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Return the mean and the standard deviation of the scaled latents.

        A cache of both keeps the sampling random.
        """

    @abstractmethod
    def decode(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Decode scaled latents to images with values in about [-1, 1]."""

    @abstractmethod
    def predict(
        self, noisy: Float[Tensor, "batch channel h w"], t: Num[Tensor, " batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch channel h w"]:
        """Return the denoiser's prediction (see ``prediction_type``) for noisy latents at timesteps ``t``."""

    @abstractmethod
    def block_outputs(
        self, noisy: Float[Tensor, "batch channel h w"], t: Num[Tensor, " batch"], conditioning: Conditioning
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The image stream after each transformer block by name, and the prediction as ``prediction``."""

    @abstractmethod
    def layer_output(
        self, block: str, queries: Float[Tensor, "batch query width"], conditioning: Conditioning
    ) -> Float[Tensor, "batch query width"]:
        """Return the output of one cross-attention layer, named as in ``spec.blocks``, for its input."""

    @abstractmethod
    def enable_per_block_attention(self) -> None:
        """Let `Conditioning.blocks` replace the attention of the layers in ``spec.blocks``."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recompute the denoiser's blocks in the backward pass instead of storing their activations.

        The gradients stay the same. Raises ModelError if the denoiser does not support it.
        """

    @abstractmethod
    def compile_blocks(self, backend: str) -> None:
        """Compile each repeated block with `torch.compile` on its first call."""

    @abstractmethod
    def set_attention_backend(self, kernel: str) -> None:
        """Compute attention with `sdpa`, `eager` or `flash`. Raises ModelError if the denoiser cannot."""

    @abstractmethod
    def set_memory_format(self, device: torch.device, is_trained: bool) -> None:
        """Choose the memory layout of the denoiser's weights for inference or training on ``device``."""

    @abstractmethod
    def finalize_weights(self, placement: Placement) -> None:
        """Offload the denoiser's weights, or store them in 8-bit floating point, as ``placement`` says.

        The weights are final: nothing may be trained, merged or converted afterwards. Raises ModelError if
        the denoiser does not support it.
        """

    @abstractmethod
    def use_step_cache(self, threshold: float) -> AbstractContextManager[None]:
        """Return a context in which a step reuses the other blocks' outputs of the step before.

        A step does so if its first block's output changes by at most ``threshold``, relative. Raises
        ModelError if the denoiser does not support it.
        """

    @abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return channels, height and width of an image's latents.

        Raises ModelError unless ``unit`` divides the size.
        """

    @abstractmethod
    def flow_shift(self, shape: tuple[int, int, int], steps: int | None = None) -> float | None:
        """Return the timestep shift for sampling latents of ``shape`` in ``steps``; None for a diffusion
        model. Without ``steps``, a shift that depends on them is that of the published pipeline's default."""

    def guide(
        self,
        unconditional: Float[Tensor, "batch channel h w"],
        conditional: Float[Tensor, "batch channel h w"],
        scale: float,
    ) -> Float[Tensor, "batch channel h w"]:
        """Return the guided prediction, as the published pipeline computes it."""
        return apply_guidance(unconditional, conditional, scale)

    def identity(self) -> str:
        """Identify the model by its files and options, wherever they are stored."""
        folded = (each.identity for each in self.folded)
        return model_identity(self, self.config, *folded, added=("variant", "quantize"))

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch channel h w"]:
        """Sample scaled latents from the autoencoder's distribution."""
        mean, std = self.encode_moments(images)
        device = torch.device("cpu") if generator is None else generator.device
        drawn = torch.randn(mean.shape, generator=generator, device=device)
        return mean + std * drawn.to(mean)
