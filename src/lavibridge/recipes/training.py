"""The `training:` and `preview:` sections of a recipe: how long, how fast, how often."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lavibridge.core.config import Config, Seed
from lavibridge.core.paths import at_home
from lavibridge.lora import LoraSettings


class LearningRates(Config):
    """One learning rate per trained part; what is not given is the published one for the vision family."""

    language_lora: float | None = Field(default=None, ge=0)
    """LoRA of the language model; published: 5e-6."""
    connector: float | None = Field(default=None, ge=0)
    """The connector; published: 1e-4 into a U-Net, 2e-5 into PixArt."""
    vision_lora: float | None = Field(default=None, ge=0)
    """LoRA of the vision model; published: as the connector."""


class Alignment(Config):
    """Before the first step the connector learns from the image model's own encoder, on captions only."""

    steps: int = Field(default=1000, ge=1)
    """Steps of it; at most three quarters of `max_minutes` are spent."""
    batch: int = Field(default=64, ge=2)
    """Captions per step."""
    lr: float = Field(default=2e-4, gt=0)
    """The connector's learning rate; it falls to nothing by a half cosine. Untried on large pairs."""
    noise: float = Field(default=0.0, ge=0)
    """Noise on the language model's features, in units of their own spread over the captions' tokens. A
    connector that hears through noise takes a word for its neighbours, also those that no caption has. At
    0.5 a quarter of such prompts came out right instead of one in sixty, and directions less often
    (docs/studies; tried on features that are not whitened)."""


class Teaching(Config):
    """The bridge learns what the image model predicts under its own text encoder."""

    guidance: float = Field(default=1.0, ge=0)
    """Guidance under which it predicts. Other than 1, the bridge then draws in one pass, without guidance."""


class Validation(Config):
    """Pictures that are never trained on, and how the loss is measured on them."""

    every: int = Field(default=500, ge=1)
    """Steps between two measurements; there is one before the first step."""
    share: float = Field(default=0.02, gt=0, lt=1)
    """Share of the data that is held out. A picture's name decides, so that none ever changes sides."""
    pictures: int = Field(default=64, ge=1)
    """How many of those held out are measured on, at most."""
    times: int = Field(default=8, ge=1)
    """At how many times of the schedule, evenly spread, each of them is."""
    seed: Seed = 0
    """Decides the noise, which is the same at every measurement."""


class Cache(Config):
    """A folder in which encoded pictures and language features stay from run to run."""

    folder: Annotated[Path, AfterValidator(lambda path: at_home(path).absolute())]
    """Where; several runs and processes may use one folder at the same time. `lavi cache` fills it ahead."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format on disk; bfloat16 takes half the room and rounds to 3 digits."""
    features: bool = True
    """Keep language features too, where the language model has no LoRA."""


class Training(Config):
    """How the bridge is trained."""

    steps: int = Field(ge=1)
    """Optimiser steps in all."""
    batch: int = Field(default=16, ge=1)
    """Pictures per pass on each device."""
    accumulate: int = Field(default=1, ge=1)
    """Passes whose gradients are added up before a step of batch x accumulate x devices pictures."""
    max_minutes: float | None = Field(default=None, gt=0)
    """End cleanly, with a checkpoint, after so many minutes of training, whatever `steps` says."""
    seed: Seed = 0
    """Decides the order of the pictures, the noise, the timesteps and every dropout."""
    device: str = "auto"
    """`auto` (a CUDA GPU, else Apple's, else the CPU), or `cpu`, `cuda`, `cuda:1`, `mps`."""
    sharding: Literal["fsdp2"] | None = None
    """`fsdp2` shares out the frozen weights over all processes, which hold one part of them each and borrow
    the rest; null keeps both models whole in every process. Checkpoints are the same."""
    workers: int = Field(default=8, ge=0)
    """Threads that read pictures, while another makes the next batch; 0 does all of it between the steps."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the computation; trained weights and their optimiser stay float32."""
    checkpointing: bool = False
    """Compute the models' blocks once more in the backward pass instead of keeping what they computed: less
    memory, about a third more time, the same gradients."""
    compile: Literal["inductor", "aot_eager"] | None = None
    """Compile the models' repeated blocks with `torch.compile` (needs a C++ compiler or a GPU); `aot_eager`
    compiles nothing and shows whether it would work."""
    attention: Literal["auto", "sdpa", "eager", "flash"] = "auto"
    """How attention is computed: as each model likes it best; by torch's own kernels; by plain products,
    which is slow, where a device's kernels are faulty; or by the package `flash-attn`."""
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    """AdamW; the same with its two averages in 8 bits (needs the extra `quantize`); or Muon, whose updates of
    matrices have all singular values about one (no gain in short runs so far, LOG.md, 2026-11-22)."""
    lr: LearningRates = LearningRates()
    """Learning rates."""
    align: Alignment | None = None
    """Begin by teaching the connector what the image model's own text encoder says; null begins anew."""
    teacher: Teaching | None = None
    """Learn what the image model predicts under its own text encoder, not the noise of the pictures. What the
    own encoder does not understand is not learnt. `lavi plan` does not count the teacher's passes."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What follows the warm-up: the full rate to the end, or a half cosine down to nothing."""
    warmup: int = Field(default=500, ge=0)
    """Steps in which the rate rises from nothing to full. (Published: 500 asked for, none given.)"""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW's weight decay."""
    clip: float | None = Field(default=1.0, gt=0)
    """Largest norm of the gradient over all trained weights; null never clips."""
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the captions replaced by the empty prompt, which is what guidance needs. (Published: none.)"""
    weighting: Literal["uniform", "min_snr", "velocity"] = "uniform"
    """How timesteps are weighted: all alike; min-SNR (Hang et al. 2023, arXiv 2303.09556); or as if velocity
    were predicted, which looks more at the noisiest times."""
    times: Literal["uniform", "logit_normal"] = "uniform"
    """Which times are trained on: all alike; or those in the middle more often, as Stable Diffusion 3 (Esser
    et al. 2024, arXiv 2403.03206, eq. 19), which is made for flows. On other models it does the same to the
    place in their schedule, and nobody has published what comes of it."""
    times_location: float = 0.0
    """Of logit_normal: above 0, noisier times come more often."""
    times_scale: float = Field(default=1.0, gt=0)
    """Of logit_normal: how widely the times spread."""
    max_skips: int = Field(default=10, ge=0)
    """Steps of a run that may be left out because a loss or the gradient is not finite; three on end stop it
    in any case, and 0 stops at the first."""
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the trained weights, which is what draws; null keeps none."""
    checkpoint_every: int = Field(default=1000, ge=0)
    """Steps between checkpoints; there is always one at the end, and 0 means only that one."""
    keep_checkpoints: int | None = Field(default=3, ge=1)
    """How many of the newest checkpoints stay; null keeps all."""
    preview_every: int = Field(default=500, ge=0)
    """Steps between sheets of sample pictures; 0 draws none."""
    validation: Validation | None = None
    """The loss on pictures that are never trained on; null holds none out."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where the numbers of `log.jsonl` also go (needs the extra `track`)."""
    latent_cache_gb: float = Field(default=2.0, ge=0)
    """Memory for encoded pictures, which are kept as long as they fit, so that each is encoded only once."""
    feature_cache_gb: float = Field(default=0.0, ge=0)
    """Memory for what a language model without LoRA makes of captions. They are then computed one by one when
    first met, which is slower on a GPU, and pays from the second or third time round."""
    cache: Cache | None = None
    """Keep both in a folder instead, for later runs; null keeps them in memory."""


class Preview(Config):
    """The sample pictures drawn while training, the untrained bridge's included."""

    prompts: tuple[str, ...] = ()
    """What is drawn, brackets as text; the first captions of the data when none are given."""
    seed: Seed = 0
    """Seed of the noise, the same at every preview."""
    steps: int = Field(default=20, ge=1)
    """Sampling steps."""
    guidance: float = Field(default=5.0, ge=0)
    """Strength of classifier-free guidance."""


class Lora(Config):
    """LoRA in the two frozen models; null leaves a model as it is."""

    language: LoraSettings | None = LoraSettings()
    """In the language model."""
    vision: LoraSettings | None = LoraSettings()
    """In the vision model."""
