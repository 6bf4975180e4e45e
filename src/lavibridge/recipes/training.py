"""The `training:`, `preview:` and `lora:` sections of a recipe: how long, how fast, how often.

A `Changeable` field may differ between the sessions of a run; `--resume` refuses a change of any other field.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SerializeAsAny

from lavibridge.core.config import Changeable, Config, Seed
from lavibridge.core.paths import at_home
from lavibridge.lora import LoraSettings
from lavibridge.recipes.sections import read_kind, reads

OPTIMIZERS, WEIGHTING, TIMESTEPS = "optimizers", "diffusion.weighting", "diffusion.timestep_sampling"
ALIGNMENT = "alignment"
"""The packages of the kinds that a recipe chooses from."""
Optimizer = Annotated[SerializeAsAny[Config], reads(OPTIMIZERS, "training.optimizer")]
Weighting = Annotated[SerializeAsAny[Config], reads(WEIGHTING, "training.weighting")]
Match = Annotated[SerializeAsAny[Config], reads(ALIGNMENT, "training.align.match")]
TimestepSampling = Annotated[SerializeAsAny[Config], reads(TIMESTEPS, "training.timestep_sampling")]


class LearningRates(Config):
    """One learning rate per trained part.

    A rate that is not given is the published one of the vision family (`published_lr`). A family without
    published rates needs a rate for every trained part.
    """

    language_lora: float | None = Field(default=None, ge=0)
    """LoRA of the language model; published: 5e-6."""
    connector: float | None = Field(default=None, ge=0)
    """The connector; published: 1e-4 into a U-Net, 2e-5 into PixArt."""
    vision_lora: float | None = Field(default=None, ge=0)
    """LoRA of the vision model; published: as the connector."""


class Alignment(Config):
    """Before the first step the connector learns from a teacher, on captions alone."""

    match: Match | None = None
    """What it reproduces: `attention`, the outputs of the cross-attention layers; `blocks`, the image stream
    after each block; `prediction`, what the denoiser predicts; `tokens`, the teacher's tokens; `closed_form`,
    ridge regression onto the tokens. None: attention where there are cross-attention layers, else blocks."""
    teacher: str | None = None
    """A bridge into the same vision model: its folder, run or hub id. None: the vision model's own text
    encoder."""
    steps: int = Field(default=1000, ge=1)
    """Optimiser steps."""
    batch: int = Field(default=64, ge=2)
    """Captions per step, over all devices."""
    captions: int = Field(default=20_000, ge=2)
    """Largest number of captions to learn from. Each is read once and visited in every epoch."""
    held_out: int = Field(default=256, ge=0)
    """Captions that only measure, at most a tenth of all; 0 measures nothing and never stops early."""
    measure_every: int = Field(default=50, ge=1)
    """Steps between two measurements on the held-out captions."""
    patience: int | None = Field(default=10, ge=1)
    """Measurements without a new lowest fvu after which alignment ends; null never ends early."""
    lr: float = Field(default=2e-4, gt=0)
    """The connector's peak learning rate; a half cosine lowers it to 0. Untried on large pairs."""
    warmup: int = Field(default=20, ge=0)
    """Steps over which the learning rate rises to its peak."""
    start: Literal["closed_form"] | None = None
    """`closed_form` solves the connector's last layer before the first step; null starts from new weights."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the noise on the language model's features, relative to their own over the tokens
    of the captions. A connector trained with noise treats neighbouring words alike, even words that no
    caption has: at 0.5 a quarter of such prompts came out right instead of one in sixty, and directions
    less often (docs/studies; measured on features that are not whitened)."""
    latents: Literal["auto", "data", "sampling"] = "auto"
    """Where the noised latents come from: the data's pictures, or the teacher's own drawing. `auto` takes the
    data where it has pictures, and sampling for `match: prediction`."""
    noised_latents: int = Field(default=256, ge=1)
    """Noised latents that the objective looks at."""
    max_time_share: float = Field(default=0.75, gt=0, le=1)
    """Largest share of `max_minutes` that alignment takes: a minute of it teaches more than one of images."""
    feature_cache_gb: float = Field(default=1.0, ge=0)
    """Memory, in GB, for the hidden states that each of the two text models computes for captions."""


class TeacherSection(Config):
    """The bridge learns what the vision model predicts under its own text encoder."""

    guidance: float = Field(default=1.0, ge=0)
    """Guidance scale of the teacher. Other than 1, the bridge needs no guidance when it generates."""


class Validation(Config):
    """Samples that training never uses, and how the loss is measured on them."""

    every: Changeable[int] = Field(default=500, ge=1)
    """Steps between two measurements; there is one before the first step."""
    share: float = Field(default=0.02, gt=0, lt=1)
    """Share of the data that is held out. A sample's name decides, so it never changes sides."""
    pictures: Changeable[int] = Field(default=64, ge=1)
    """Largest number of held-out samples that are measured."""
    times: Changeable[int] = Field(default=8, ge=1)
    """Number of timesteps, evenly spread over the schedule, at which each sample is measured."""
    seed: Changeable[Seed] = 0
    """Seed of the noise, which is the same at every measurement."""


class Cache(Config):
    """A folder that keeps encoded images and language features from run to run."""

    folder: Annotated[Path, AfterValidator(lambda path: at_home(path).absolute())]
    """Its path; several runs and processes may share one folder. `lavi cache` fills it ahead of training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format on disk; bfloat16 takes half the space and rounds to 3 digits."""
    features: bool = True
    """Keep language features too, if the language model has no LoRA."""


class Training(Config):
    """How the bridge is trained."""

    steps: Changeable[int] = Field(ge=0)
    """Optimiser steps in all; 0 ends after the alignment."""
    batch: Changeable[int] = Field(default=16, ge=1)
    """Samples per forward pass on each device."""
    accumulate: Changeable[int] = Field(default=1, ge=1)
    """Passes whose gradients add up to one step of batch x accumulate x devices samples."""
    max_minutes: Changeable[float | None] = Field(default=None, gt=0)
    """Minutes after which training ends with a checkpoint, whatever `steps` is."""
    seed: Seed = 0
    """Seed of the order of the samples, the noise, the timesteps and every dropout."""
    device: Changeable[str] = "auto"
    """`auto` (a CUDA GPU, else Apple's, else the CPU), or `cpu`, `cuda`, `cuda:1`, `mps`."""
    sharding: Changeable[Literal["fsdp2"] | None] = None
    """`fsdp2` splits the frozen weights over all processes, which gather them block by block; null keeps both
    models whole in every process. Checkpoints are the same."""
    workers: Changeable[int] = Field(default=8, ge=0)
    """Threads that read images, while another prepares the next batch; 0 does both between the steps."""
    precision: Changeable[Literal["float32", "bfloat16"]] = "float32"
    """Number format of the computation; trained weights and their optimiser stay float32."""
    checkpointing: Changeable[bool] = False
    """Gradient checkpointing: recompute the models' blocks in the backward pass. It takes less memory and
    about a third more time; the gradients are the same."""
    compile: Changeable[Literal["inductor", "aot_eager"] | None] = None
    """Compile the models' repeated blocks with `torch.compile` (needs a C++ compiler or a GPU); `aot_eager`
    generates no code and shows whether compiling would work."""
    attention: Changeable[Literal["auto", "sdpa", "eager", "flash"]] = "auto"
    """Attention backend: each model's default; PyTorch's kernels; plain matrix products, which are slow, for
    devices whose kernels are faulty; or the package `flash-attn`."""
    optimizer: Optimizer = read_kind(OPTIMIZERS, "adamw")
    """`adamw`; `adamw8bit`, with both moments in 8 bits (needs the extra `quantize`); or `muon`, which makes
    all singular values of a matrix's update about one (no gain in short runs so far, LOG.md, 2026-11-22)."""
    lr: Changeable[LearningRates] = LearningRates()
    """Learning rates."""
    align: Changeable[Alignment | None] = None
    """Align the connector with the vision model's own text encoder first; null starts from new weights."""
    teacher: TeacherSection | None = None
    """Learn what the vision model predicts under its own text encoder instead of the noise of the images. The
    bridge does not learn what that encoder does not understand."""
    schedule: Changeable[Literal["constant", "cosine"]] = "constant"
    """Learning rate after the warm-up: constant, or a half cosine down to 0."""
    warmup: Changeable[int] = Field(default=500, ge=0)
    """Steps over which the learning rate rises from 0. (The published text says 500, its code does none.)"""
    weight_decay: Changeable[float] = Field(default=1e-2, ge=0)
    """Weight decay of the optimiser."""
    clip: Changeable[float | None] = Field(default=1.0, gt=0)
    """Largest norm of the gradient over all trained weights; null never clips."""
    caption_dropout: Changeable[float] = Field(default=0.1, ge=0, lt=1)
    """Share of captions that the empty prompt replaces, for classifier-free guidance. (Published: none.)"""
    weighting: Changeable[Weighting] = read_kind(WEIGHTING, "uniform")
    """Weight of the loss at each timestep: `uniform`; `min_snr` (Hang et al. 2023, arXiv 2303.09556); or
    `velocity`, the error of the velocity whatever the model predicts, which emphasises the noisiest
    timesteps."""
    timestep_sampling: Changeable[TimestepSampling] = read_kind(TIMESTEPS, "uniform")
    """Distribution of the training timesteps: `uniform`; or `logit_normal` with `mean` and `std`, which draws
    those in the middle more often (Esser et al. 2024, arXiv 2403.03206, eq. 19)."""
    max_skips: Changeable[int] = Field(default=10, ge=0)
    """Steps that a run may skip because a loss or the gradient is not finite; three in a row always end it,
    and 0 ends it at the first."""
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the trained weights, which generation uses; null keeps none."""
    checkpoint_every: Changeable[int] = Field(default=1000, ge=0)
    """Steps between checkpoints; there is always one at the end, and 0 writes only that one."""
    keep_checkpoints: Changeable[int | None] = Field(default=3, ge=1)
    """Number of newest checkpoints that stay; null keeps all."""
    preview_every: Changeable[int] = Field(default=500, ge=0)
    """Steps between sheets of sample images; 0 draws none."""
    validation: Validation | None = None
    """The loss on samples that training never uses; null holds none out."""
    trackers: Changeable[tuple[Literal["tensorboard", "wandb", "trackio"], ...]] = ()
    """Where the numbers of `log.jsonl` also go (needs the extra `track`)."""
    latent_cache_gb: Changeable[float] = Field(default=2.0, ge=0)
    """Memory, in GB, for encoded images; an image that fits is encoded only once."""
    feature_cache_gb: Changeable[float] = Field(default=0.0, ge=0)
    """Memory, in GB, for the features that a language model without LoRA computes for captions. They are then
    computed one by one, which is slower on a GPU and pays from the second or third epoch."""
    cache: Changeable[Cache | None] = None
    """Keep both in a folder instead, for later runs; null keeps them in memory."""


class PreviewSection(Config):
    """The sample images drawn during training, the untrained bridge's included."""

    prompts: tuple[str, ...] = ()
    """The prompts, brackets as text; by default the first captions of the data."""
    seed: Seed = 0
    """Seed of the noise, the same at every preview."""
    steps: int = Field(default=20, ge=1)
    """Sampling steps."""
    guidance: float = Field(default=5.0, ge=0)
    """Scale of classifier-free guidance."""


class LoraSection(Config):
    """LoRA in the two frozen models; null leaves a model as it is."""

    language: LoraSettings | None = LoraSettings()
    """In the language model."""
    vision: LoraSettings | None = LoraSettings()
    """In the vision model."""
