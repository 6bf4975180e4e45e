"""The `training:`, `preview:` and `lora:` sections of a recipe.

A `Changeable` field may differ between the sessions of a run; `--resume` refuses a change of any other field.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from lavibridge.core.config import Changeable, Config, Seed
from lavibridge.core.paths import expand_path
from lavibridge.lora import LoraSettings
from lavibridge.recipes.sections import read_kind_section, section_field

OPTIMIZERS, WEIGHTING, TIMESTEPS = "optimizers", "diffusion.weighting", "diffusion.timestep_sampling"
ALIGNMENT = "alignment"
"""Packages of the kinds that these sections choose from."""
OptimizerSection = Annotated[SerializeAsAny[Config], section_field(OPTIMIZERS, "training.optimizer")]
WeightingSection = Annotated[SerializeAsAny[Config], section_field(WEIGHTING, "training.weighting")]
Match = Annotated[SerializeAsAny[Config], section_field(ALIGNMENT, "training.align.match")]
TimestepSamplingSection = Annotated[
    SerializeAsAny[Config], section_field(TIMESTEPS, "training.timestep_sampling")
]


class LearningRateSection(Config):
    """One learning rate per trained part.

    The default is the published rate of the vision family (`published_lr`). A part without a published rate
    needs one.
    """

    language_lora: float | None = Field(default=None, ge=0)
    """LoRA of the language model; published: 5e-6."""
    connector: float | None = Field(default=None, ge=0)
    """The connector; published: 1e-4 into a U-Net, 2e-5 into PixArt."""
    vision_lora: float | None = Field(default=None, ge=0)
    """LoRA of the vision model; published: as the connector, or 2e-5 to 4e-4 where only LoRA is trained."""


class AlignmentSection(Config):
    """Before the first step, the connector learns from a teacher, on captions alone."""

    match: Match | None = None
    """What alignment reproduces: `attention`, the outputs of the cross-attention layers; `blocks`, the image
    stream after each block; `prediction`, the denoiser's prediction; `tokens`, the teacher's tokens; or
    `closed_form`, ridge regression onto the tokens. By default `attention` if there are cross-attention
    layers, otherwise `blocks`; and `tokens` for a translator in front of a connector with a fixed number of
    tokens."""
    teacher: str | None = None
    """A bridge to the same vision model: its folder, run or hub id. By default the vision model's own text
    encoder is the teacher."""
    max_sequence_length: int | None = Field(default=None, ge=2)
    """Length of prompts in the own text encoders whose pipeline has this argument (SD3, FLUX). None: its
    default."""
    steps: int = Field(default=1000, ge=1)
    """Optimiser steps."""
    batch: int = Field(default=64, ge=2)
    """Captions per step, over all devices."""
    captions: int = Field(default=20_000, ge=2)
    """Maximum number of captions to learn from; every epoch uses each once."""
    held_out: int = Field(default=256, ge=0)
    """Captions for measurement only, at most a tenth of all; 0 disables measurement and early stopping.
    Without a measurement, `closed_form` needs no denoiser, so that `lavi align` does not load it."""
    measure_every: int = Field(default=50, ge=1)
    """Steps between two measurements on the held-out captions."""
    patience: int | None = Field(default=10, ge=1)
    """Measurements without a new lowest fvu after which alignment ends; null disables early stopping."""
    lr: float = Field(default=2e-4, gt=0)
    """The connector's peak learning rate, which falls to 0 along a half cosine. Untested on large pairs."""
    warmup: int = Field(default=20, ge=0)
    """Steps over which the learning rate rises to its peak."""
    start: Literal["closed_form"] | None = None
    """`closed_form` solves the connector's last layer before the first step; null starts from new weights."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the noise on the language model's features, relative to the standard deviation
    of the features over the tokens of the captions. Noise makes a connector treat similar words alike, even
    words that no caption contains: at 0.5 a quarter of such prompts came out right instead of one in sixty,
    while directions came out right less often (docs/studies, features without whitening)."""
    latents: Literal["auto", "data", "sampling"] = "auto"
    """Source of the noised latents: `data`, the images of the data; `sampling`, images that the teacher
    generates; or `auto`, the data if it has images, but sampling for `match: prediction`."""
    noised_latents: int = Field(default=256, ge=1)
    """Number of noised latents that the objective uses."""
    max_time_share: float = Field(default=0.75, gt=0, le=1)
    """Largest share of `max_minutes` for alignment, which teaches more per minute than training on images."""
    feature_cache_gb: float = Field(default=1.0, ge=0)
    """Memory, in GB, for the captions' hidden states of each of the two text models. `training.cache` keeps
    all of them on disk."""


class StartSection(Config):
    """Trained weights that the run starts from: a saved bridge's, or those of two halves of a pivot."""

    bridge: str | None = None
    """A bridge between the same two models, with the recipe's connector and LoRA: its folder, run or hub
    id."""
    pivot: Annotated[Path, AfterValidator(expand_path)] | None = None
    """The folder of a pivot that has a half for each of the recipe's models; the connector is `pivot`, with
    the options of both halves."""

    @model_validator(mode="after")
    def _one(self) -> "StartSection":
        if (self.bridge is None) == (self.pivot is None):
            raise ValueError("name either `bridge` or `pivot`")
        return self


class TeacherSection(Config):
    """The bridge learns what the vision model predicts under its own text encoder."""

    guidance: float = Field(default=1.0, ge=0)
    """Guidance scale of the teacher. With any value but 1, the bridge generates without guidance."""


class ValidationSection(Config):
    """Measures the loss on samples that training never uses."""

    every: Changeable[int] = Field(default=500, ge=1)
    """Steps between two measurements; the first is before the first step."""
    share: float = Field(default=0.02, gt=0, lt=1)
    """Share of the data that is held out. A hash of a sample's name decides, so no sample changes sides."""
    pictures: Changeable[int] = Field(default=64, ge=1)
    """Maximum number of held-out samples in a measurement."""
    times: Changeable[int] = Field(default=8, ge=1)
    """Number of timesteps, evenly spread over the schedule, at which each sample is measured."""
    seed: Changeable[Seed] = 0
    """Seed of the noise, which is the same at every measurement."""


class CacheSection(Config):
    """A folder that stores encoded images and language features for later runs."""

    folder: Annotated[Path, AfterValidator(lambda path: expand_path(path).absolute())]
    """Path of the folder. Several runs and processes may share it; `lavi cache` fills it before training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format on disk; bfloat16 needs half the space and rounds to 3 digits."""
    features: bool = True
    """Store language features too, if the language model has no LoRA."""


class TrainingSection(Config):
    """How the bridge is trained."""

    steps: Changeable[int] = Field(ge=0)
    """Total number of optimiser steps; 0 ends after alignment."""
    batch: Changeable[int] = Field(default=16, ge=1)
    """Samples per forward pass on each device."""
    accumulate: Changeable[int] = Field(default=1, ge=1)
    """Passes per optimiser step, which then has batch x accumulate x devices samples."""
    max_minutes: Changeable[float | None] = Field(default=None, gt=0)
    """Minutes after which training ends with a checkpoint, even before `steps`."""
    seed: Seed = 0
    """Seed of the sample order, the noise, the timesteps and every dropout."""
    device: Changeable[str] = "auto"
    """`auto` (a CUDA GPU, else Apple's, else the CPU), or `cpu`, `cuda`, `cuda:1`, `mps`."""
    sharding: Changeable[Literal["fsdp2"] | None] = None
    """`fsdp2` shards the frozen weights over all processes, which gather them block by block; null keeps both
    models whole in every process. Checkpoints are the same."""
    workers: Changeable[int] = Field(default=8, ge=0)
    """Threads that read images; a GPU has one more that prepares the next batch. 0: none of them."""
    precision: Changeable[Literal["float32", "bfloat16"]] = "float32"
    """Number format of the computation; trained weights and optimiser state stay float32."""
    checkpointing: Changeable[bool] = False
    """Gradient checkpointing: recompute the models' blocks in the backward pass. Needs less memory and about
    a third more time; the gradients are the same."""
    compile: Changeable[Literal["inductor", "aot_eager"] | None] = None
    """Compile the models' repeated blocks with `torch.compile` (needs a C++ compiler or a GPU); `aot_eager`
    generates no code and shows whether compiling would work."""
    attention: Changeable[Literal["auto", "sdpa", "eager", "flash"]] = "auto"
    """Attention backend: `auto`, each model's default; `sdpa`, PyTorch's kernels; `eager`, plain and slow
    matrix products, for devices with faulty kernels; or `flash`, the package `flash-attn`."""
    optimizer: OptimizerSection = read_kind_section(OPTIMIZERS, "adamw")
    """`adamw`; `adamw8bit`, with both moments in 8 bits (needs the extra `quantize`); or `muon`, which
    orthogonalises the update of each matrix (no gain in short runs so far, LOG.md, 2026-11-22)."""
    lr: Changeable[LearningRateSection] = LearningRateSection()
    """Learning rates."""
    start: StartSection | None = None
    """Start from trained weights; null starts from new ones."""
    align: Changeable[AlignmentSection | None] = None
    """First align the connector with the vision model's own text encoder; null starts from new weights."""
    teacher: TeacherSection | None = None
    """Use the vision model's prediction under its own text encoder as the target, instead of the noise of the
    images. The bridge does not learn what that encoder does not understand."""
    schedule: Changeable[Literal["constant", "cosine"]] = "constant"
    """Learning rate after the warm-up: constant, or a half cosine down to 0."""
    warmup: Changeable[int] = Field(default=500, ge=0)
    """Steps over which the learning rate rises from 0. (The paper states 500; its code has none.)"""
    weight_decay: Changeable[float] = Field(default=1e-2, ge=0)
    """Weight decay of the optimiser."""
    clip: Changeable[float | None] = Field(default=1.0, gt=0)
    """Maximum norm of the gradient over all trained weights; null never clips."""
    caption_dropout: Changeable[float] = Field(default=0.1, ge=0, lt=1)
    """Share of captions replaced by the empty prompt, for classifier-free guidance. (Published: none.)"""
    weighting: Changeable[WeightingSection] = read_kind_section(WEIGHTING, "uniform")
    """Weight of the loss at each timestep: `uniform`; `min_snr` (Hang et al. 2023, arXiv 2303.09556); or
    `velocity`, which turns any prediction's error into the velocity's and emphasises the noisiest
    timesteps."""
    timestep_sampling: Changeable[TimestepSamplingSection] = read_kind_section(TIMESTEPS, "uniform")
    """Distribution of the training timesteps: `uniform`; or `logit_normal` with `mean` and `std`, which
    samples timesteps in the middle more often (Esser et al. 2024, arXiv 2403.03206, eq. 19)."""
    max_skips: Changeable[int] = Field(default=10, ge=0)
    """Steps that a run may skip because a loss or the gradient is not finite. Three in a row always end the
    run; 0 ends it at the first."""
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the trained weights, which generation uses; null disables it."""
    checkpoint_every: Changeable[int] = Field(default=1000, ge=0)
    """Steps between checkpoints; 0 writes only the one at the end."""
    keep_checkpoints: Changeable[int | None] = Field(default=3, ge=1)
    """Number of newest checkpoints to keep; null keeps all."""
    preview_every: Changeable[int] = Field(default=500, ge=0)
    """Steps between sheets of sample images; 0 generates none."""
    validation: ValidationSection | None = None
    """The loss on samples that training never uses; null holds none out."""
    trackers: Changeable[tuple[Literal["tensorboard", "wandb", "trackio"], ...]] = ()
    """Trackers that also receive the numbers of `log.jsonl` (needs the extra `track`)."""
    latent_cache_gb: Changeable[float] = Field(default=2.0, ge=0)
    """Memory, in GB, for encoded images, each of which is encoded only once."""
    feature_cache_gb: Changeable[float] = Field(default=0.0, ge=0)
    """Memory, in GB, for the captions' features of a language model without LoRA. The cache computes captions
    one by one, which is slower on a GPU and pays off from the second or third epoch."""
    cache: Changeable[CacheSection | None] = None
    """Store both caches in a folder for later runs; null keeps them in memory. Once either holds the features
    of all captions, the language model leaves memory, and previews and validation load it again."""


class PreviewSection(Config):
    """The sample images generated during training, and before its first step."""

    prompts: tuple[str, ...] = ()
    """The prompts, in which brackets are plain text; by default the first captions of the data."""
    seed: Seed = 0
    """Seed of the noise, the same at every preview."""
    steps: int = Field(default=20, ge=1)
    """Number of inference steps."""
    guidance: float = Field(default=5.0, ge=0)
    """Guidance scale."""


class LoraSection(Config):
    """LoRA in the two frozen models; null adds none to a model."""

    language: LoraSettings | None = LoraSettings()
    """In the language model."""
    vision: LoraSettings | None = LoraSettings()
    """In the vision model."""
