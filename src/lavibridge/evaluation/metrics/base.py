"""What every metric promises: it says what it is, and judges pictures one by one or a set of them as a whole.

    ImageMetric   score(pictures, tasks) -> a Score per picture
    SetMetric       measure(drawn, reference) -> one number for two sets of features

A metric is made as `Metric(config)`: this finds out that all its files are there, and loads no weights. They
are loaded at the first picture, and freed with the metric.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image

from lavibridge.core import registry
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.errors import DataError
from lavibridge.evaluation.base import Score, ScoredTask, Task
from lavibridge.evaluation.sets.encoders import Resize, make_extractor
from lavibridge.evaluation.sets.features import Features, Reference
from lavibridge.evaluation.sets.reference import check_reference
from lavibridge.evaluation.stats import Estimate

MIN_IMAGES = 20
"""Pictures below which a set is not measured."""


class Metric(ABC):
    """A judge of pictures; its file in `evaluation/metrics` is its kind."""

    class Config(BaseConfig):
        """The options of a metric."""

        name: str | None = None
        """What results call it; its kind by default. Two metrics of one kind need two names."""
        categories: tuple[str, ...] | None = None
        """The categories that it judges; all of the suite's by default."""

    version: ClassVar[int] = 1
    """Raised whenever a change of this code makes its numbers incomparable."""
    unit: ClassVar[str] = ""
    """`share` where its values are shares, to be shown in per cent; else they are shown as they are."""
    lower_is_better: ClassVar[bool] = False

    config: "Metric.Config"

    def __init__(self, config: "Metric.Config") -> None:
        """Keep the options; a subclass also finds its files, or raises RecipeError or ModelError."""
        self.config = config

    @property
    def kind(self) -> str:
        """The name of its file."""
        return registry.kind_of("evaluation.metrics", self)

    @property
    def name(self) -> str:
        """What results call it."""
        return self.config.name or self.kind

    def card(self) -> dict[str, Any]:
        """All that its numbers depend on, as JSON: scores of different cards are never compared or mixed.

        A subclass adds the models, with their hashes, and the resize rule.
        """
        options = self.config.model_dump(mode="json", exclude={"name", "categories"})
        return {"kind": self.kind, "version": self.version, "options": options}

    def applies_to(self, category: str) -> bool:
        """Whether it judges pictures of a category."""
        return self.config.categories is None or category in self.config.categories

    def check(self, tasks: Sequence[Task]) -> None:  # noqa: B027 - most need nothing
        """Raise DataError, before anything is drawn, where tasks lack what it has to know."""

    def free(self) -> None:  # noqa: B027 - some have none
        """Let go of its weights; they are loaded again when they are needed again."""


class ImageMetric(Metric):
    """Judges pictures one by one."""

    batch: ClassVar[int] = 32
    """Pictures judged at a time."""

    @abstractmethod
    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """A score for each picture of a batch, RGB, each with the task that it was drawn for.

        What cannot be scored is `unscored(reason)`, never left out, never 0.
        """

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """Further figures over all pictures that are no plain means; by default none.

        `stats.interval_of` makes their intervals over prompts.
        """
        return {}


class SetMetric(Metric):
    """Measures the set of all drawn pictures against a reference set, by their features."""

    class Config(Metric.Config):
        """The options of a metric of sets."""

        reference: str
        """What to measure against: a folder of pictures, a file of features or of their mean and covariance
        (.npz or .safetensors), or `world`: new scenes of the same categories."""
        features: str
        """Whose features: an image model (a folder, a shipped one, a hub id), or the weights of FID's
        Inception as a .safetensors file."""
        resize: Resize | None = None
        """How pictures are brought to the network's size. None: what the metric is defined by."""

    config: "SetMetric.Config"
    lower_is_better = True
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    """Between which its figures lie; intervals end there."""

    def __init__(self, config: "SetMetric.Config") -> None:
        """Find the network; ModelError where it is absent."""
        super().__init__(config)
        self.extractor = make_extractor(config.features, config.resize)

    @abstractmethod
    def against(self, reference: Reference) -> Callable[[Features], dict[str, float]]:
        """A function from the drawn pictures' features to its figures; what only the reference decides is
        computed once. DataError where it needs features and the reference has but their moments."""

    def card(self) -> dict[str, Any]:
        """Its options and its extractor; which reference it was is added when it is read. No paths."""
        card = super().card()
        inside = ("reference", "features", "resize")
        options = {key: value for key, value in card["options"].items() if key not in inside}
        return {**card, "options": options, "features": self.extractor.card()}

    def check(self, tasks: Sequence[Task]) -> None:
        """Enough pictures, and a reference; DataError where one is missing."""
        if len(tasks) < MIN_IMAGES:
            raise DataError(
                f"metric '{self.name}' measures sets of at least {MIN_IMAGES} pictures, and {len(tasks)} are "
                "asked for: take more prompts"
            )
        check_reference(self.config.reference, tasks)

    def free(self) -> None:
        """Let go of the extractor's weights."""
        self.extractor.free()
