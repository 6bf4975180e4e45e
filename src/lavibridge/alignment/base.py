"""The contract of alignment objectives and solvers.

    caption --teacher's text encoder, frozen-----------------> conditioning --\
                                                                               the objective compares them
    caption --language model, frozen--> connector (learns) --> conditioning --/

    loss = mean over places of  E|output - teacher's output|^2 / Var[teacher's output]

The loss is the fraction of variance unexplained (fvu): 0 if every place has the teacher's output, 1 if it has
the mean output for every caption. Each kind chooses the places that it compares. If the vision model takes a
pooled vector, every kind compares that too.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from lavibridge.alignment.parts.variance import unexplained
from lavibridge.bridge import Bridge
from lavibridge.connectors.base import Connector
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import Conditioning, TextFeatures
from lavibridge.vision.base import VisionModel

CaptionBatches = Callable[[], Iterable[tuple[Sequence[str], TextFeatures, TextFeatures]]]
"""Yields captions with their features from the student's and the teacher's language model."""


@dataclass(frozen=True, kw_only=True)
class NoisedLatents:
    """Noised latents of one shape, and the captions that they belong to."""

    latents: Float[Tensor, "image channel h w"]
    t: Num[Tensor, " image"]
    """The vision model's own times."""
    prompts: tuple[str, ...]


class AlignmentKind(ABC):
    """The contract of the kinds that `training.align.match` names."""

    class Config(BaseConfig):
        """The options of a kind."""

    config: "AlignmentKind.Config"

    def __init__(self, config: "AlignmentKind.Config") -> None:
        self.config = config

    @classmethod
    def refusal(
        cls, connector: type[Connector], config: Connector.Config, vision: type[VisionModel]
    ) -> str | None:
        """Return the reason why a connector and a vision model of these kinds cannot be aligned, or None."""
        return None


class AlignmentSolver(AlignmentKind):
    """Computes weights of the connector in closed form, without steps."""

    @abstractmethod
    def fit(self, student: Bridge, teacher: Bridge, batches: CaptionBatches) -> None:
        """Set weights of the student's connector; each call of ``batches`` iterates over all captions."""


class AlignmentObjective(AlignmentKind):
    """Compares a student's conditioning with a teacher's, step by step."""

    needs_latents: ClassVar[bool] = True
    """Whether it needs noised latents, and so calls the denoiser."""
    compares_places: ClassVar[bool] = False
    """Whether it compares tokens place by place, so that student and teacher need equally many."""
    calls_layers: ClassVar[bool] = False
    """Whether it calls single layers of the denoiser, which sharded weights (FSDP2) do not allow."""
    follows_sampling: ClassVar[bool] = False
    """Whether, by default, the noised latents come from the teacher's own generation."""

    t: Num[Tensor, " image"]
    """Times of the noised latents."""

    def prepare(self, student: Bridge, teacher: Bridge, noised: Sequence[NoisedLatents]) -> None:
        """Prepare for the noised latents before the first step. Without `needs_latents` the list is empty.

        Raises ModelError if the two bridges cannot be compared in this way.
        """
        times = [each.t for each in noised] or [teacher.vision.times]
        self.t = torch.cat(times)

    def choose(self, count: int, generator: torch.Generator) -> Int[Tensor, " caption"]:
        """Choose the noised latents, by index, that each of ``count`` captions is paired with."""
        return torch.randint(len(self.t), (count,), generator=generator)

    def loss(
        self,
        student: Bridge,
        teacher: Bridge,
        features: TextFeatures,
        teacher_features: TextFeatures,
        chosen: Int[Tensor, " caption"],
    ) -> Float[Tensor, ""]:
        """Return the mean fvu over all places, given both language models' features of the same captions."""
        t = self.t[chosen]
        with torch.no_grad():
            target = teacher.connector(teacher_features, t)
        conditioning = student.connector(features, t)
        fractions = self.fractions(student.vision, conditioning, target, chosen)
        if target.pooled is not None and conditioning.pooled is not None:
            fractions.append(unexplained(conditioning.pooled, target.pooled, over=(0,)))
        return torch.stack(fractions).mean()

    @abstractmethod
    def fractions(
        self,
        vision: VisionModel,
        conditioning: Conditioning,
        target: Conditioning,
        chosen: Int[Tensor, " caption"],
    ) -> list[Float[Tensor, ""]]:
        """Return the fvu of each place except the pooled vector; only ``conditioning`` gets gradients."""
