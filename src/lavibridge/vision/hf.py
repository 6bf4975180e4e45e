"""Vision models of the diffusers library; a family is a subclass that says how its denoiser is called.

    noisy, t, conditioning -> denoiser -> prediction, float32
    image -> autoencoder -> (mean - shift) * scale, std * scale        with its own shift and scale

Folders are as Diffusers saves them: the denoiser, the autoencoder and ``scheduler/``. Only safetensors are
read. What a model predicts, its noise schedule and all sizes are read from its own configuration.
"""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import diffusers
import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning, VisionSpec
from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError
from lavibridge.core.sources import RANDOM, read_model_json
from lavibridge.core.text_sides import TextSide
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts import attention_backend, step_cache
from lavibridge.vision.parts.attention_processor import PerBlockAttention, cross_attention_layers
from lavibridge.vision.parts.loading import load_diffusers_part, load_scheduler, quieten_diffusers
from lavibridge.vision.parts.memory_format import use_contiguous_norms, set_memory_format
from lavibridge.vision.parts.padding import padding_bias, predict_without_padding
from lavibridge.vision.parts.pipeline_defaults import with_pipeline_defaults
from lavibridge.vision.parts.scheduler_settings import scheduler_prediction_type, scheduler_sampling_shift, scheduler_training_schedule
from lavibridge.vision.parts.toys import TOY_AUTOENCODER, TOY_DIFFUSION


class DiffusersModel(VisionModel):
    """What all families share; the class attributes are what a family says of itself."""

    denoiser_folder: ClassVar[str]
    """Sub-folder of the denoiser."""
    denoiser_class: ClassVar[str]
    """Class in diffusers."""
    class_names: ClassVar[tuple[str, ...]]
    """Values of `_class_name` in the denoiser's config.json that it reads."""
    autoencoder_folder: ClassVar[str] = "vae"
    """Sub-folder of the autoencoder."""
    autoencoder_class: ClassVar[str] = "AutoencoderKL"
    """Class in diffusers, and its `_class_name`."""
    pipeline_class: ClassVar[str | None] = None
    """Class in diffusers of the pipeline that the denoiser goes into, where one takes our tokens."""
    text: ClassVar[TextSide | None] = None
    """How its pipeline reads prompts, but for lengths and instructions that are the pipeline's defaults."""
    rms: ClassVar[float | None] = None
    """Root mean square of the tokens that it was trained with, where that is known."""
    block_argument: ClassVar[str | None] = "cross_attention_kwargs"
    """The denoiser's argument that reaches the attention's processors, where it has one that does."""
    opened: ClassVar[tuple[str, ...]] = ("attn1", "attn2")
    """Ends of the names of the layers that `open_blocks` replaces: all that hear connectors."""
    toy: ClassVar[Mapping[str, Any]]
    """The denoiser's configuration for `source: random`."""
    toy_autoencoder: ClassVar[Mapping[str, Any]] = TOY_AUTOENCODER
    """The autoencoder's."""
    toy_scheduler: ClassVar[Mapping[str, Any]] = TOY_DIFFUSION
    """The scheduler's, and its class."""

    backbone: Any
    autoencoder: Any

    def __init__(self, config: VisionModel.Config, device: torch.device | None = None) -> None:
        """Load the model; on the meta ``device``, build it from its configurations alone."""
        super().__init__()
        quieten_diffusers()
        self.config = config
        is_toy = config.source == RANDOM
        with torch.device("cpu"):  # a scheduler computes at once, so that the meta device is not for it
            self.scheduler = self._toy_scheduler() if is_toy else self._load_scheduler()
        self.prediction_type = scheduler_prediction_type(self.scheduler, config.source)
        schedule = scheduler_training_schedule(self.scheduler)
        for name in ("alphas", "sigmas", "times"):
            self.register_buffer(name, getattr(schedule, name), persistent=False)
        self.backbone, self.autoencoder = self._toy_models(device) if is_toy else self._load_models(device)
        for part in (self.backbone, self.autoencoder):
            part.requires_grad_(False)
            part.eval()
        use_contiguous_norms(self.backbone)
        self.set_memory_format(torch.device("cpu"), is_trained=False)
        self.spec = VisionSpec(
            context=self._context_width(),
            pooled=self._pooled_width(),
            blocks=cross_attention_layers(self.backbone),
            rms=self.rms,
        )
        self.factor = 2 ** (self._depth() - 1)
        self.patch = self._patch()
        self.unit = self.factor * self.patch
        self.channels = int(self.autoencoder.config.latent_channels)
        self.default_size = self._default_size()
        self.is_open = False

    def text_side(self) -> TextSide:
        """How the pipeline that model_index.json names reads prompts, by the defaults of its call."""
        if self.text is None or self.config.source == RANDOM:
            return super().text_side()
        found = read_model_json(self.config.source, "model_index.json", self.config.revision) or {}
        return with_pipeline_defaults(self.text, found.get("_class_name"), self.pipeline_class)

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether the folder's configuration names the family's classes."""
        return source != RANDOM and cls.refusal(source, revision) is None

    @classmethod
    def refusal(cls, source: str, revision: str | None = None) -> str | None:
        """What ``source`` has instead of what the family reads, or None where it has that."""
        denoiser, autoencoder = cls.settings_at(source, revision)
        for settings, folder, names in (
            (denoiser, cls.denoiser_folder, cls.class_names),
            (autoencoder, cls.autoencoder_folder, (cls.autoencoder_class,)),
        ):
            found = str(settings.get("_class_name", ""))
            if found not in names:
                return f"{f'a {found}' if found else 'nothing'} in {folder}/, not {' or '.join(names)}"
        return None

    @classmethod
    def settings_at(cls, source: str, revision: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The configurations of denoiser and autoencoder; empty where there are none."""
        denoiser = read_model_json(source, f"{cls.denoiser_folder}/config.json", revision) or {}
        return denoiser, read_model_json(source, f"{cls.autoencoder_folder}/config.json", revision) or {}

    def encode_moments(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Mean and standard deviation of the scaled latents."""
        weights = next(self.autoencoder.parameters())
        with torch.no_grad():
            mean, std = self._encoded(images.to(weights).contiguous())
        shift, scale = self._shift_and_scale()
        return (mean - shift) * scale, std * scale

    def decode(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Pictures of scaled latents."""
        weights = next(self.autoencoder.parameters())
        shift, scale = self._shift_and_scale()
        with torch.no_grad():
            scaled = (latents / scale + shift).to(weights).contiguous()
            return self.autoencoder.decode(scaled, return_dict=False)[0]

    def open_blocks(self) -> None:
        """Replace the attention's processors by ones that let a connector speak."""
        self._need_blocks()
        for name in [name for name, _ in self.backbone.named_modules() if name.endswith(self.opened)]:
            self.backbone.get_submodule(name).set_processor(PerBlockAttention(name))
        self.is_open = True

    def predict(
        self, noisy: Float[Tensor, "batch channel h w"], t: Num[Tensor, " batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch channel h w"]:
        """What the denoiser predicts."""
        if self.spec.pooled is not None and conditioning.pooled is None:
            raise ModelError(
                f"'{self.config.source}' takes a pooled vector {self.spec.pooled} wide beside the tokens, "
                "found none: use a connector that pools"
            )
        if conditioning.blocks and not self.is_open:
            raise ModelError("the denoiser's blocks are closed to connectors: call open_blocks() first")
        dtype = pick_dtype(self.config.dtype)
        pooled = None if conditioning.pooled is None else conditioning.pooled.to(dtype)
        conditioning = replace(conditioning, tokens=conditioning.tokens.to(dtype), pooled=pooled)
        if self.honours_mask:
            return self._call(noisy.to(dtype), t, conditioning).float()
        return predict_without_padding(self._call, noisy.to(dtype), t, conditioning).float()

    def attend(
        self, block: str, queries: Float[Tensor, "batch query width"], conditioning: Conditioning
    ) -> Float[Tensor, "batch query width"]:
        """What one cross-attention layer makes of its input."""
        self._need_blocks()
        dtype = pick_dtype(self.config.dtype)
        output = self.backbone.get_submodule(block)(
            queries.to(dtype),
            encoder_hidden_states=self._context(conditioning.tokens.to(dtype)),
            attention_mask=padding_bias(conditioning.mask, dtype),
        )
        return output.float()

    def enable_gradient_checkpointing(self) -> None:
        attention_backend.enable_gradient_checkpointing(self.backbone, self.config.source)

    def compile_blocks(self, backend: str) -> None:
        attention_backend.compile_repeated_blocks(self.backbone, backend)

    def set_attention_backend(self, kernel: str) -> None:
        plain = diffusers.models.attention_processor.AttnProcessor
        attention_backend.choose_attention_kernel(self.backbone, kernel, plain, self.config.source)

    def set_memory_format(self, device: torch.device, is_trained: bool) -> None:
        set_memory_format(self.backbone, device, is_trained)

    def reusing(self, threshold: float) -> AbstractContextManager[None]:
        return step_cache.use_step_cache(self.backbone, threshold, self.config.source)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a picture."""
        if height < self.unit or width < self.unit or height % self.unit or width % self.unit:
            raise ModelError(f"sides must be multiples of {self.unit} pixels, found {height}x{width}")
        return self.channels, height // self.factor, width // self.factor

    def flow_shift(self, shape: tuple[int, int, int]) -> float | None:
        """How far sampling is shifted towards noise, by the model's own scheduler."""
        if self.prediction_type != "flow":
            return None
        return scheduler_sampling_shift(self.scheduler, (shape[1] // self.patch) * (shape[2] // self.patch))

    @abstractmethod
    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        """Call the denoiser."""

    @abstractmethod
    def _context_width(self) -> int:
        """Width of the conditioning tokens."""

    def _pooled_width(self) -> int | None:
        """Width of the pooled vector, or None where the denoiser takes none."""
        return None

    def _block_arguments(self, conditioning: Conditioning) -> dict[str, Any]:
        """The argument of the denoiser's call that carries per-block connectors, if there is one."""
        if not (self.block_argument and conditioning.blocks):
            return {}
        return {self.block_argument: {"blocks": conditioning.blocks}}

    def _context(self, tokens: Float[Tensor, "batch token context"]) -> Float[Tensor, "batch token _"]:
        """The conditioning tokens as the cross-attention layers get them."""
        return tokens

    def _need_blocks(self) -> None:
        if not self.spec.blocks:
            raise ModelError(
                f"'{self.config.source}' has no cross-attention layers: text and picture attend to each "
                "other jointly in it; use a connector that makes tokens only, and leave training.align out"
            )

    def _depth(self) -> int:
        """Resolutions of the autoencoder."""
        return len(self.autoencoder.config.block_out_channels)

    def _patch(self) -> int:
        """Heights and widths of latents are multiples of this."""
        return int(self.backbone.config.get("patch_size", 1))

    def _default_size(self) -> int:
        return int(self.backbone.config.sample_size) * self.factor

    def _encoded(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Mean and standard deviation of the autoencoder's latents, before they are scaled."""
        latents = self.autoencoder.encode(images).latent_dist
        return latents.mean, latents.std

    def _shift_and_scale(self) -> tuple[float, float]:
        settings = self.autoencoder.config
        return float(settings.get("shift_factor") or 0.0), float(settings.scaling_factor)

    def _check(self, denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> None:
        """Raise ModelError where the two do not fit each other, by their configurations."""
        read, made = denoiser.get("in_channels"), autoencoder.get("latent_channels")
        if read != made and None not in (read, made):
            raise ModelError(
                f"'{self.config.source}' reads {read} channels, and its latents have {made}: it is shown "
                "pictures beside the noise; choose a model that takes text only"
            )

    def _toy_scheduler(self) -> Any:
        options = dict(self.toy_scheduler)
        return getattr(diffusers, options.pop("_class_name"))(**options)

    def _toy_models(self, device: torch.device | None) -> tuple[Any, Any]:
        with torch.random.fork_rng(devices=[]), device or nullcontext():
            torch.manual_seed(0)
            denoiser = getattr(diffusers, self.denoiser_class)(**self.toy)
            autoencoder = getattr(diffusers, self.autoencoder_class)(**self.toy_autoencoder)
        return denoiser.to(pick_dtype(self.config.dtype)), autoencoder

    def _load_scheduler(self) -> Any:
        """The model's own scheduler, after all that is to be known of it without its weights."""
        source, revision = self.config.source, self.config.revision
        unread = self.refusal(source, revision)
        if unread is not None:
            raise ModelError(f"'{source}' has {unread}: leave out `kind`, or name another")
        self._check(*self.settings_at(source, revision))
        return load_scheduler(source, revision)

    def _load_models(self, device: torch.device | None) -> tuple[Any, Any]:
        is_meta = device is not None and device.type == "meta"
        denoiser, autoencoder = (
            load_diffusers_part(getattr(diffusers, name), self.config, folder, dtype, is_meta)
            for name, folder, dtype in (
                (self.denoiser_class, self.denoiser_folder, pick_dtype(self.config.dtype)),
                (self.autoencoder_class, self.autoencoder_folder, torch.float32),
            )
        )
        return denoiser, autoencoder
