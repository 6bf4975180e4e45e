"""Vision models of the diffusers library; a family is a subclass that says how its denoiser is called.

    noisy, t, conditioning -> denoiser -> prediction, float32
    image -> autoencoder -> (mean - shift) * scale, std * scale        with its own shift and scale

Folders are as Diffusers saves them: the denoiser, ``vae/`` and ``scheduler/``. Only safetensors are read.
"""

import sys
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import diffusers
import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import BlockSpec, Conditioning, VisionSpec
from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError
from lavibridge.core.files import resolve_source
from lavibridge.core.sources import RANDOM, read_model_json
from lavibridge.diffusion.schedule import Schedule, diffusion_schedule
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts.opened import OpenedAttention

TOY_AUTOENCODER: Mapping[str, Any] = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 4,
    "sample_size": 32,
    "scaling_factor": 0.3,
}

HIDDEN = -10_000.0
"""Added to the scores of tokens that are padding, as the library's denoisers do."""


class DiffusersModel(VisionModel):
    """What all families share; the class attributes are what a family says of itself."""

    denoiser_folder: ClassVar[str]
    """Sub-folder of the denoiser."""
    denoiser_class: ClassVar[str]
    """Class in diffusers."""
    class_names: ClassVar[tuple[str, ...]]
    """Values of `_class_name` in the denoiser's config.json that it reads."""
    block_argument: ClassVar[str] = "cross_attention_kwargs"
    """The denoiser's argument that reaches the attention's processors."""
    patch: ClassVar[int]
    """Heights and widths of latents are multiples of this."""
    toy: ClassVar[Mapping[str, Any]]
    """The denoiser's configuration for `source: random`."""

    backbone: Any
    autoencoder: Any

    def __init__(self, config: VisionModel.Config) -> None:
        super().__init__()
        self.config = config
        if config.source == RANDOM:
            self.backbone, self.autoencoder, self.scheduler = self._build_toy()
        else:
            self.backbone, self.autoencoder, self.scheduler = self._load()
        for part in (self.backbone, self.autoencoder):
            part.requires_grad_(False)
            part.eval()
        # Faster on a CPU. The autoencoder keeps the plain order: its large group norms lose digits in it.
        self.backbone.to(memory_format=torch.channels_last)
        self.prediction_type = str(self.scheduler.config.get("prediction_type", "epsilon"))
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ModelError(
                f"'{config.source}' predicts '{self.prediction_type}' by its scheduler's configuration; "
                "epsilon, v_prediction and sample are known"
            )
        schedule = self._schedule()
        for name in ("alphas", "sigmas", "times"):
            self.register_buffer(name, getattr(schedule, name), persistent=False)
        self.spec = VisionSpec(context=self._context_width(), blocks=self._blocks())
        self.factor = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        self.channels = int(self.autoencoder.config.latent_channels)
        self.default_size = int(self.backbone.config.sample_size) * self.factor

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether the denoiser's config.json names one of the family's classes."""
        return source != RANDOM and cls._class_at(source, revision) in cls.class_names

    def encode_moments(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Mean and standard deviation of the scaled latents."""
        weights = next(self.autoencoder.parameters())
        with torch.no_grad():
            latents = self.autoencoder.encode(images.to(weights).contiguous()).latent_dist
        shift, scale = self._shift_and_scale()
        return (latents.mean - shift) * scale, latents.std * scale

    def decode(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Pictures of scaled latents."""
        weights = next(self.autoencoder.parameters())
        shift, scale = self._shift_and_scale()
        with torch.no_grad():
            return self.autoencoder.decode(
                (latents / scale + shift).to(weights).contiguous(), return_dict=False
            )[0]

    def open_blocks(self) -> None:
        """Replace the attention's processors by ones that let a connector speak."""
        for name, module in self.backbone.named_modules():
            if name.endswith(("attn1", "attn2")):
                module.set_processor(OpenedAttention(name))

    def predict(
        self, noisy: Float[Tensor, "batch channel h w"], t: Num[Tensor, " batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch channel h w"]:
        """What the denoiser predicts; a mask that hides nothing is left out: attention is faster so."""
        dtype = pick_dtype(self.config.dtype)
        mask = None if bool(conditioning.mask.all()) else conditioning.mask
        extra = {self.block_argument: {"blocks": conditioning.blocks}} if conditioning.blocks else {}
        return self._call(noisy.to(dtype), t, conditioning.tokens.to(dtype), mask, extra).float()

    def attend(
        self, block: str, queries: Float[Tensor, "batch query width"], conditioning: Conditioning
    ) -> Float[Tensor, "batch query width"]:
        """What one cross-attention layer makes of its input."""
        dtype = pick_dtype(self.config.dtype)
        hidden = (1 - conditioning.mask.to(dtype)) * HIDDEN
        output = self.backbone.get_submodule(block)(
            queries.to(dtype),
            encoder_hidden_states=self._context(conditioning.tokens.to(dtype)),
            attention_mask=hidden[:, None],
        )
        return output.float()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a picture."""
        unit = self.factor * self.patch
        if height < unit or width < unit or height % unit or width % unit:
            raise ModelError(f"sides must be multiples of {unit} pixels, found {height}x{width}")
        return self.channels, height // self.factor, width // self.factor

    @abstractmethod
    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        tokens: Float[Tensor, "batch token context"],
        mask: Tensor | None,
        extra: Mapping[str, Any],
    ) -> Float[Tensor, "batch channel h w"]:
        """Call the denoiser; ``extra`` are arguments to be handed on."""

    def _context(self, tokens: Float[Tensor, "batch token context"]) -> Float[Tensor, "batch token _"]:
        """The conditioning tokens as the cross-attention layers get them."""
        return tokens

    @abstractmethod
    def _context_width(self) -> int:
        """Width of the conditioning tokens."""

    def _schedule(self) -> Schedule:
        return diffusion_schedule(self.scheduler.alphas_cumprod)

    def _blocks(self) -> dict[str, BlockSpec]:
        """Cross-attention layers by name."""
        return {
            name: BlockSpec(
                width=int(module.to_q.in_features),
                inner=int(module.to_q.out_features),
                heads=int(module.heads),
            )
            for name, module in self.backbone.named_modules()
            if name.endswith("attn2")
        }

    def _shift_and_scale(self) -> tuple[float, float]:
        settings = self.autoencoder.config
        return float(settings.get("shift_factor") or 0.0), float(settings.scaling_factor)

    def _build_toy(self) -> tuple[Any, Any, Any]:
        _quieten()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            denoiser = getattr(diffusers, self.denoiser_class)(**self.toy)
            autoencoder = diffusers.AutoencoderKL(**TOY_AUTOENCODER)
        scheduler = diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        )
        return denoiser.to(pick_dtype(self.config.dtype)), autoencoder, scheduler

    def _load(self) -> tuple[Any, Any, Any]:
        source, revision = self.config.source, self.config.revision
        found = self._class_at(source, revision)
        if found not in self.class_names:
            raise ModelError(
                f"'{source}' has {f'a {found}' if found else 'nothing'} in {self.denoiser_folder}/, not "
                f"{' or '.join(self.class_names)}: leave out `kind`, or name another"
            )
        schedule = read_model_json(source, "scheduler/scheduler_config.json", revision) or {}
        scheduler_class = getattr(diffusers, str(schedule.get("_class_name", "")), None)
        if scheduler_class is None:
            raise ModelError(f"'{source}' has no scheduler/scheduler_config.json naming a Diffusers class")
        root = resolve_source(source)
        _quieten()
        try:
            scheduler = scheduler_class.from_pretrained(root, subfolder="scheduler", revision=revision)
            if "alphas_cumprod" not in vars(scheduler):
                raise ModelError(
                    f"'{source}' has the schedule of a flow model ({schedule['_class_name']}), which this "
                    "family does not know: choose a model with a diffusion schedule"
                )
            denoiser = getattr(diffusers, self.denoiser_class).from_pretrained(
                root,
                subfolder=self.denoiser_folder,
                revision=revision,
                torch_dtype=pick_dtype(self.config.dtype),
                use_safetensors=True,
            )
            autoencoder = diffusers.AutoencoderKL.from_pretrained(
                root, subfolder="vae", revision=revision, torch_dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"the vision model '{source}' cannot be loaded: {error}") from error
        return denoiser, autoencoder, scheduler

    @classmethod
    def _class_at(cls, source: str, revision: str | None) -> str:
        description = read_model_json(source, f"{cls.denoiser_folder}/config.json", revision) or {}
        return str(description.get("_class_name", ""))


def _quieten() -> None:
    """Keep the library's loading notes to itself, and its bar where nobody watches."""
    diffusers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        diffusers.utils.logging.disable_progress_bar()
