"""Vision models of the diffusers library; each family is a subclass that calls its own denoiser.

    noisy, t, conditioning -> denoiser -> prediction, float32
    image -> autoencoder -> (mean - shift) * scale, std * scale        with its own shift and scale

A model's folder has the layout of Diffusers: the denoiser, the autoencoder and ``scheduler/``. A single-file
checkpoint has the weights of such a folder, and its configuration lies elsewhere (parts/single_file.py).
Weights load from safetensors only. The model's own configuration states its prediction type, noise schedule
and sizes.
"""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import diffusers
import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning, VisionSpec
from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError
from lavibridge.core.placement import Placement, check_bitsandbytes
from lavibridge.core.quantization import quantize_linear_layers
from lavibridge.core.sources import RANDOM, read_model_json
from lavibridge.core.text_encoders import PipelineTextEncoders
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts import attention_backend, step_cache
from lavibridge.vision.parts.attention_processor import PerBlockAttention, cross_attention_layers
from lavibridge.vision.parts.block_outputs import record_block_outputs
from lavibridge.vision.parts.loading import (
    ModelFiles,
    find_model_files,
    ignore_diffusers_deprecations,
    load_diffusers_part,
    load_scheduler,
    placement_of_files,
    quieten_diffusers,
)
from lavibridge.vision.parts.memory_format import set_memory_format, use_contiguous_norms
from lavibridge.vision.parts.offloading import finalize_denoiser
from lavibridge.vision.parts.padding import padding_bias, predict_without_padding, rows_by_length
from lavibridge.vision.parts.pipeline_defaults import with_pipeline_defaults
from lavibridge.vision.parts.published import PublishedModel
from lavibridge.vision.parts.scheduler_settings import (
    scheduler_prediction_type,
    scheduler_sampling_shift,
    scheduler_training_schedule,
)
from lavibridge.vision.parts.single_file import locate_configuration
from lavibridge.vision.parts.toys import TOY_AUTOENCODER, TOY_DIFFUSION

Statistic = float | Float[Tensor, "1 channel 1 1"]


class DiffusersModel(VisionModel):
    """The base of all families; a family describes its folder and its classes in the class attributes."""

    denoiser_folder: ClassVar[str]
    """Sub-folder of the denoiser."""
    denoiser_class: ClassVar[str]
    """The denoiser's class in diffusers."""
    class_names: ClassVar[tuple[str, ...]]
    """The values of `_class_name` in the denoiser's config.json that the family accepts."""
    autoencoder_folder: ClassVar[str] = "vae"
    """Sub-folder of the autoencoder."""
    autoencoder_class: ClassVar[str] = "AutoencoderKL"
    """The autoencoder's class in diffusers, and its `_class_name`."""
    pipeline_class: ClassVar[str | None] = None
    """The pipeline class in diffusers that takes this denoiser and prompt embeddings, if any."""
    text: PipelineTextEncoders | None = None
    """The pipeline's text encoders; their lengths and instruction come from the pipeline's own defaults."""
    rms: ClassVar[float | None] = None
    """Root mean square of the tokens that the model was trained with; None if unknown."""
    context_field: ClassVar[str]
    """The field of the denoiser's configuration that holds the width of its conditioning tokens."""
    block_lists: ClassVar[str] = "transformer_blocks"
    """End of the names of the denoiser's lists of repeated blocks."""
    is_image_first: ClassVar[bool] = False
    """Whether a block that returns text and image returns the image first."""
    block_argument: ClassVar[str | None] = "cross_attention_kwargs"
    """The denoiser's argument that reaches its attention processors; None if it has none."""
    per_block_layers: ClassVar[tuple[str, ...]] = ("attn1", "attn2")
    """Suffixes of the names of the attention layers that receive a connector's per-block functions."""
    toy: ClassVar[Mapping[str, Any]]
    """The denoiser's configuration for `source: random`."""
    toy_autoencoder: ClassVar[Mapping[str, Any]] = TOY_AUTOENCODER
    """The autoencoder's configuration for `source: random`."""
    toy_scheduler: ClassVar[Mapping[str, Any]] = TOY_DIFFUSION
    """The scheduler's configuration for `source: random`, with its class."""
    pipeline_time_divisor: ClassVar[float] = 1.0
    """What its pipeline divides a timestep by before it calls the denoiser."""
    pipeline_guidance_offset: ClassVar[float] = 0.0
    """What is subtracted from our guidance scale to get its pipeline's."""
    published: ClassVar[Mapping[str, PublishedModel]] = MappingProxyType({})
    """The sizes of published models, by hub id."""
    toy_pipelines: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Its published pipelines in diffusers -> the class and configuration of each text encoder of a toy."""

    backbone: Any
    autoencoder: Any
    files: ModelFiles | None
    """Where the model is read from; None for a toy."""

    def __init__(self, config: VisionModel.Config, device: torch.device | None = None) -> None:
        """Load the model; on the meta ``device``, build it without weights from its configurations."""
        super().__init__()
        quieten_diffusers()
        self.config = config
        check_bitsandbytes("vision.quantize", config.quantize)
        files = None if config.source == RANDOM else find_model_files(config)
        self.files = files
        self.placement = placement_of_files(Placement.of(config, device), files)
        with torch.device("cpu"):  # a scheduler computes its schedule, which the meta device cannot do
            self.scheduler = self._toy_scheduler() if files is None else self._load_scheduler(files)
        self.prediction_type = scheduler_prediction_type(self.scheduler, config.source)
        schedule = scheduler_training_schedule(self.scheduler)
        for name in ("alphas", "sigmas", "times"):
            self.register_buffer(name, getattr(schedule, name), persistent=False)
        with ignore_diffusers_deprecations():
            self.backbone, self.autoencoder = (
                self._toy_models(device) if files is None else self._load_models(files)
            )
        if config.quantize is not None and not self.placement.is_meta:
            quantize_linear_layers(self.backbone, config.quantize)
        for part in (self.backbone, self.autoencoder):
            part.requires_grad_(False)
            part.eval()
        use_contiguous_norms(self.backbone)
        self.set_memory_format(torch.device("cpu"), is_trained=False)
        self.spec = VisionSpec(
            context=int(self.backbone.config[self.context_field]),
            pooled=self._pooled_width(),
            blocks={} if self.joint_attention else cross_attention_layers(self.backbone),
            rms=self.rms,
        )
        self.factor = 2 ** (self._depth() - 1)
        self.patch = self._patch()
        self.unit = self.factor * self.patch
        self.channels = self._channels()
        self.default_size = self._default_size()
        self.has_per_block_attention = False

    def pipeline_text_encoders(self) -> PipelineTextEncoders:
        """Describe the text encoders of the pipeline in model_index.json, with the defaults of its call."""
        if self.text is None or self.files is None:
            return super().pipeline_text_encoders()
        found = self.files.read_json("model_index.json") or {}
        return with_pipeline_defaults(self.text, found.get("_class_name"), self.pipeline_class)

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether the model's configuration names the family's classes."""
        return source != RANDOM and cls.refusal(source, revision) is None

    @classmethod
    def refusal(cls, source: str, revision: str | None = None) -> str | None:
        """Say what ``source`` holds that the family cannot load; None if it can load everything."""
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
        """Return the configurations of denoiser and autoencoder; empty if a file is missing."""
        root, revision = locate_configuration(source, None, revision)
        denoiser = read_model_json(root, f"{cls.denoiser_folder}/config.json", revision) or {}
        return denoiser, read_model_json(root, f"{cls.autoencoder_folder}/config.json", revision) or {}

    def encode_moments(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Return the mean and the standard deviation of the scaled latents."""
        weights = next(self.autoencoder.parameters())
        with torch.no_grad():
            mean, std = self._encoded(images.to(weights).contiguous())
        shift, scale = self._shift_and_scale()
        return (mean - shift) * scale, std * scale

    def decode(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Decode scaled latents to images."""
        weights = next(self.autoencoder.parameters())
        shift, scale = self._shift_and_scale()
        with torch.no_grad():
            return self._decoded((latents / scale + shift).to(weights).contiguous())

    def enable_per_block_attention(self) -> None:
        """Install attention processors that call a connector's per-block functions."""
        self._need_blocks()
        for name in [
            name for name, _ in self.backbone.named_modules() if name.endswith(self.per_block_layers)
        ]:
            self.backbone.get_submodule(name).set_processor(PerBlockAttention(name, self._context))
        self.has_per_block_attention = True

    def predict(
        self, noisy: Float[Tensor, "batch channel h w"], t: Num[Tensor, " batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch channel h w"]:
        """Return the denoiser's prediction as float32. Raises ModelError for unsuitable conditioning."""
        if self.spec.pooled is not None and conditioning.pooled is None:
            raise ModelError(
                f"'{self.config.source}' takes a pooled vector of width {self.spec.pooled} in addition to "
                "the tokens, found none: use a connector that pools"
            )
        if conditioning.blocks and not self.has_per_block_attention:
            raise ModelError(
                "the denoiser has no per-block attention: call enable_per_block_attention() first"
            )
        dtype = pick_dtype(self.config.dtype)
        pooled = None if conditioning.pooled is None else conditioning.pooled.to(dtype)
        conditioning = replace(conditioning, tokens=conditioning.tokens.to(dtype), pooled=pooled)
        if self.honours_mask:
            return self._call(noisy.to(dtype), t, conditioning).float()
        return predict_without_padding(self._call, noisy.to(dtype), t, conditioning).float()

    def block_outputs(
        self, noisy: Float[Tensor, "batch channel h w"], t: Num[Tensor, " batch"], conditioning: Conditioning
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The image stream after each transformer block, and the prediction."""
        image_tokens = (noisy.shape[2] // self.patch) * (noisy.shape[3] // self.patch)
        joint = image_tokens if self.joint_attention else None
        with record_block_outputs(self.backbone, self.block_lists, joint, self.is_image_first) as recorded:
            prediction = self.predict(noisy, t, conditioning)
        outputs = {name: torch.cat(calls).float() for name, calls in recorded.items()}
        if not self.honours_mask:  # `predict` called the denoiser once for each length
            order = torch.cat(rows_by_length(conditioning.mask)).argsort()
            outputs = {name: output[order] for name, output in outputs.items()}
        return {**outputs, "prediction": prediction}

    def layer_output(
        self, block: str, queries: Float[Tensor, "batch query width"], conditioning: Conditioning
    ) -> Float[Tensor, "batch query width"]:
        """Return the output of one cross-attention layer for its input."""
        self._need_blocks()
        dtype = pick_dtype(self.config.dtype)
        output = self.backbone.get_submodule(block)(
            queries.to(dtype),
            encoder_hidden_states=self._context(conditioning.tokens.to(dtype)),
            attention_mask=self._layer_mask(padding_bias(conditioning.mask, dtype)),
        )
        return output.float()

    def enable_gradient_checkpointing(self) -> None:
        attention_backend.enable_gradient_checkpointing(self.backbone, self.config.source)

    def compile_blocks(self, backend: str) -> None:
        attention_backend.compile_repeated_blocks(self.backbone, self.block_lists, backend)

    def set_attention_backend(self, kernel: str) -> None:
        plain = diffusers.models.attention_processor.AttnProcessor
        attention_backend.choose_attention_kernel(self.backbone, kernel, plain, self.config.source)

    def set_memory_format(self, device: torch.device, is_trained: bool) -> None:
        set_memory_format(self.backbone, device, is_trained)

    def finalize_weights(self, placement: Placement) -> None:
        self.placement = finalize_denoiser(self.backbone, self.placement, placement, self.config.source)

    def use_step_cache(self, threshold: float) -> AbstractContextManager[None]:
        return step_cache.use_step_cache(self.backbone, threshold, self.config.source)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return channels, height and width of an image's latents."""
        if height < self.unit or width < self.unit or height % self.unit or width % self.unit:
            raise ModelError(
                f"height and width must be multiples of {self.unit} pixels, found {height}x{width}"
            )
        return self.channels, height // self.factor, width // self.factor

    def flow_shift(self, shape: tuple[int, int, int], steps: int | None = None) -> float | None:
        """Return the timestep shift of the model's scheduler for latents of ``shape``."""
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

    def _pooled_width(self) -> int | None:
        """Width of the pooled vector; None if the denoiser takes none."""
        return None

    def _block_arguments(self, conditioning: Conditioning) -> dict[str, Any]:
        """Return the denoiser's argument with the per-block functions; empty if there are none."""
        if not (self.block_argument and conditioning.blocks):
            return {}
        return {self.block_argument: {"blocks": conditioning.blocks}}

    def _context(self, tokens: Float[Tensor, "batch token context"]) -> Float[Tensor, "batch token _"]:
        """Project the conditioning tokens as the denoiser does before its cross-attention layers."""
        return tokens

    def _layer_mask(self, bias: Float[Tensor, "batch 1 token"]) -> Float[Tensor, "batch *_ token"]:
        """Return the bias of the attention scores in the shape that a cross-attention layer takes."""
        return bias

    def _need_blocks(self) -> None:
        if not self.spec.blocks:
            raise ModelError(
                f"'{self.config.source}' has no cross-attention layers that a connector can replace: use a "
                "connector without per-block attention, and leave training.align out"
            )

    def _depth(self) -> int:
        """Number of resolutions of the autoencoder."""
        return len(self.autoencoder.config.block_out_channels)

    def _channels(self) -> int:
        """Number of channels of the latents."""
        return int(self.autoencoder.config.latent_channels)

    def _patch(self) -> int:
        """Height and width of latents are multiples of this."""
        return int(self.backbone.config.get("patch_size", 1))

    def _default_size(self) -> int:
        return int(self.backbone.config.sample_size) * self.factor

    def _encoded(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Return the mean and the standard deviation of the autoencoder's latents before scaling."""
        latents = self.autoencoder.encode(images).latent_dist
        return latents.mean, latents.std

    def _decoded(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Decode latents of the autoencoder's own scale."""
        return self.autoencoder.decode(latents, return_dict=False)[0]

    def _shift_and_scale(self) -> tuple[Statistic, Statistic]:
        """Shift and scale of the autoencoder's latents: one number, or one for each channel."""
        settings = self.autoencoder.config
        factor = float(settings.get("scaling_factor") or 1.0)
        mean, std = settings.get("latents_mean"), settings.get("latents_std")
        if mean is None or std is None:
            return float(settings.get("shift_factor") or 0.0), factor
        shift, spread = (self.alphas.new_tensor(each).view(1, -1, 1, 1) for each in (mean, std))
        return shift, factor / spread

    def _check(self, denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> None:
        """Raise ModelError if the configurations of denoiser and autoencoder do not match."""
        read, made = denoiser.get("in_channels"), autoencoder.get("latent_channels")
        if read != made and None not in (read, made):
            raise ModelError(
                f"the denoiser of '{self.config.source}' takes {read} channels, but its latents have {made}: "
                "it takes an image as an additional input; choose a text-to-image model"
            )

    def _toy_scheduler(self) -> Any:
        options = dict(self.toy_scheduler)
        return getattr(diffusers, options.pop("_class_name"))(**options)

    def _toy_models(self, device: torch.device | None) -> tuple[Any, Any]:
        with torch.random.fork_rng(devices=[]), device or nullcontext():
            torch.manual_seed(0)
            denoiser = getattr(diffusers, self.denoiser_class)(**self.toy)
            with torch.no_grad():
                self._finish_toy(denoiser)
            autoencoder = getattr(diffusers, self.autoencoder_class)(**self.toy_autoencoder)
        return denoiser.to(pick_dtype(self.config.dtype)), autoencoder

    def _finish_toy(self, denoiser: Any) -> None:
        """Change the weights of a toy that its class leaves without a value, or that close its gates."""

    def _load_scheduler(self, files: ModelFiles) -> Any:
        """Load the scheduler, after every check that needs no weights."""
        place = (files.configuration, files.configuration_revision)
        unread = self.refusal(*place)
        if unread is not None:
            raise ModelError(f"'{files.configuration}' has {unread}: omit `kind`, or name another")
        self._check(*self.settings_at(*place))
        return load_scheduler(files)

    def _load_models(self, files: ModelFiles) -> tuple[Any, Any]:
        whole = replace(self.placement, dtype=torch.float32, quantize=None)
        denoiser, autoencoder = (
            load_diffusers_part(getattr(diffusers, name), files, folder, placement, is_denoiser)
            for name, folder, placement, is_denoiser in (
                (self.denoiser_class, self.denoiser_folder, self.placement, True),
                (self.autoencoder_class, self.autoencoder_folder, whole, False),
            )
        )
        return denoiser, autoencoder
