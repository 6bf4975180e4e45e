"""The `training:` and `preview:` sections of a recipe: how long, how fast, how often."""

from typing import Literal

from pydantic import Field

from lavibridge.core.config import Config
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
    """Steps of it; at most half of `max_minutes` is spent."""
    batch: int = Field(default=64, ge=2)
    """Captions per step."""
    lr: float = Field(default=2e-4, gt=0)
    """The connector's learning rate; it falls to nothing by a half cosine. Untried on large pairs."""


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
    seed: int = Field(default=0, ge=0)
    """Decides the order of the pictures, the noise, the timesteps and every dropout."""
    device: str = "auto"
    """`auto` (a CUDA GPU, else Apple's, else the CPU), or `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the computation; trained weights and their optimiser stay float32."""
    lr: LearningRates = LearningRates()
    """Learning rates."""
    align: Alignment | None = None
    """Begin by teaching the connector what the image model's own text encoder says; null begins anew."""
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
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the trained weights, which is what draws; null keeps none."""
    checkpoint_every: int = Field(default=1000, ge=0)
    """Steps between checkpoints; there is always one at the end, and 0 means only that one."""
    keep_checkpoints: int | None = Field(default=3, ge=1)
    """How many of the newest checkpoints stay; null keeps all."""
    preview_every: int = Field(default=500, ge=0)
    """Steps between sheets of sample pictures; 0 draws none."""
    latent_cache_gb: float = Field(default=2.0, ge=0)
    """Memory for encoded pictures: when all fit, each is encoded only once."""


class Preview(Config):
    """The sample pictures drawn while training, the untrained bridge's included."""

    prompts: tuple[str, ...] = ()
    """What is drawn; the first captions of the data when none are given."""
    seed: int = Field(default=0, ge=0)
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
