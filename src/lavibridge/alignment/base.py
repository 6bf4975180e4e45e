"""The contract of alignment: what a bridge reproduces of a teacher's conditioning.

    caption --teacher's text side, frozen--------------------> conditioning --\
                                                                               the objective compares them
    caption --language model, frozen--> connector (learns) --> conditioning --/

    loss = mean over places of  E|output - teacher's output|^2 / Var[teacher's output]

The loss is the fraction of variance unexplained (fvu): 0 where every place has the teacher's output, 1 where
it has the same mean for every caption. A kind says which places it compares. The pooled vector, of vision
models that take one, is a place of every kind.
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
"""Yields captions with their features by the student's language model and by the teacher's."""


@dataclass(frozen=True, kw_only=True)
class NoisedLatents:
    """Noised latents of one shape, and the captions that they belong to."""

    latents: Float[Tensor, "image channel h w"]
    t: Num[Tensor, " image"]
    """The vision model's own times."""
    prompts: tuple[str, ...]


class AlignmentKind(ABC):
    """What `training.align.match` chooses."""

    class Config(BaseConfig):
        """The options of a kind."""

    config: "AlignmentKind.Config"

    def __init__(self, config: "AlignmentKind.Config") -> None:
        self.config = config

    @classmethod
    def refusal(cls, connector: type[Connector], vision: type[VisionModel]) -> str | None:
        """Return why a connector and a vision model of these kinds cannot be aligned, or None."""
        return None


class AlignmentSolver(AlignmentKind):
    """Solves for weights of the connector, without steps."""

    @abstractmethod
    def fit(self, student: Bridge, teacher: Bridge, batches: CaptionBatches) -> None:
        """Set weights of the student's connector; ``batches`` gives the captions at each call."""


class AlignmentObjective(AlignmentKind):
    """Compares the conditioning of a student with that of a teacher, step by step."""

    needs_latents: ClassVar[bool] = True
    """Whether it looks at noised latents, and so calls the denoiser."""
    compares_places: ClassVar[bool] = False
    """Whether it compares tokens place by place, so that student and teacher need equally many."""
    calls_layers: ClassVar[bool] = False
    """Whether it calls single layers of the denoiser, which weights in shards (FSDP2) do not allow."""
    follows_sampling: ClassVar[bool] = False
    """Whether the noised latents are those that the teacher meets when it draws."""

    t: Num[Tensor, " image"]
    """Times of the noised latents."""

    def prepare(self, student: Bridge, teacher: Bridge, noised: Sequence[NoisedLatents]) -> None:
        """Look at the noised latents once, before the first step. Without `needs_latents` the list is empty.

        Raises ModelError if the two bridges cannot be compared in this way.
        """
        times = [each.t for each in noised] or [teacher.vision.times]
        self.t = torch.cat(times)

    def choose(self, count: int, generator: torch.Generator) -> Int[Tensor, " caption"]:
        """Return the number of the noised latents that each of ``count`` captions meets."""
        return torch.randint(len(self.t), (count,), generator=generator)

    def loss(
        self,
        student: Bridge,
        teacher: Bridge,
        features: TextFeatures,
        teacher_features: TextFeatures,
        chosen: Int[Tensor, " caption"],
    ) -> Float[Tensor, ""]:
        """Return the mean fvu over all places, for features of the same captions by both text sides."""
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
        """Return the fvu of each place but the pooled vector; gradients pass to ``conditioning`` only."""
