"""The contract of metrics, which score images one by one or a set of images as a whole.

    ImageMetric   score(pictures, tasks) -> a Score per picture
    SetMetric       against(reference)(drawn) -> numbers for two sets of features

`Metric(config)` checks that all its files exist, and loads no weights. The first image loads them, and `free`
releases them.
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
from lavibridge.evaluation.sets.extractors import ExtractorResize, make_extractor
from lavibridge.evaluation.sets.features import ReferenceFeatures, SetFeatures
from lavibridge.evaluation.sets.reference import check_reference
from lavibridge.evaluation.stats import Estimate

MIN_SET_IMAGES = 20
"""Minimum number of pictures in a set."""


class Metric(ABC):
    """A metric; the name of its file in `evaluation/metrics` is its kind."""

    class Config(BaseConfig):
        """The options of a metric."""

        name: str | None = None
        """Its name in results, by default its kind. Two metrics of one kind need two names."""
        categories: tuple[str, ...] | None = None
        """The categories that it scores; by default all of the suite's."""

    version: ClassVar[int] = 1
    """Increases whenever a change of this code makes its numbers incomparable."""
    unit: ClassVar[str] = ""
    """`share` if its values are shares, which reports show in per cent; otherwise empty."""
    lower_is_better: ClassVar[bool] = False

    config: "Metric.Config"

    def __init__(self, config: "Metric.Config") -> None:
        """Store the options; a subclass also finds its files, or raises RecipeError or ModelError."""
        self.config = config

    @property
    def kind(self) -> str:
        """The name of its file."""
        return registry.kind_of("evaluation.metrics", self)

    @property
    def name(self) -> str:
        """Its name in results."""
        return self.config.name or self.kind

    def card(self) -> dict[str, Any]:
        """Everything that its scores depend on, as JSON; scores of different cards are never compared.

        A subclass adds the models, with their hashes, and the resize rule.
        """
        options = self.config.model_dump(mode="json", exclude={"name", "categories"})
        return {"kind": self.kind, "version": self.version, "options": options}

    def applies_to(self, category: str) -> bool:
        """Whether it scores pictures of a category."""
        return self.config.categories is None or category in self.config.categories

    def check(self, tasks: Sequence[Task]) -> None:  # noqa: B027 - most need nothing
        """Raise DataError before generation if tasks lack the metadata that it needs."""

    def free(self) -> None:  # noqa: B027 - some have none
        """Free its weights; the next use loads them again."""


class ImageMetric(Metric):
    """Scores pictures one by one."""

    batch: ClassVar[int] = 32
    """Pictures per batch."""

    @abstractmethod
    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """Score a batch of RGB images, each with its task.

        Returns `unscored_score(reason)` for an image that it cannot score, and never omits it or scores it 0.
        """

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """Further estimates over all pictures that are not plain means; by default none.

        `stats.bootstrap_interval_of` gives their intervals over prompts.
        """
        return {}


class SetMetric(Metric):
    """Compares the features of all generated images with those of a reference set."""

    class Config(Metric.Config):
        """The options of a set metric."""

        reference: str
        """The reference: a folder of pictures, a file of features or of their mean and covariance (.npz or
        .safetensors), or `world` for new scenes of the same categories."""
        features: str
        """The feature extractor: an image model (a folder, a shipped one, a hub id), or the weights of FID's
        Inception as a .safetensors file."""
        resize: ExtractorResize | None = None
        """How to resize images for the network. None: as the metric defines it."""

    config: "SetMetric.Config"
    lower_is_better = True
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    """The range of its values, which limits intervals."""

    def __init__(self, config: "SetMetric.Config") -> None:
        """Find the network. Raises ModelError if it is missing."""
        super().__init__(config)
        self.extractor = make_extractor(config.features, config.resize)

    @abstractmethod
    def against(self, reference: ReferenceFeatures) -> Callable[[SetFeatures], dict[str, float]]:
        """Return a function from the generated images' features to values by name.

        It computes the reference's part only once. Raises DataError if the metric needs features and the
        reference has only their moments.
        """

    def card(self) -> dict[str, Any]:
        """The options and the extractor, without paths; reading the reference adds its identity."""
        card = super().card()
        inside = ("reference", "features", "resize")
        options = {key: value for key, value in card["options"].items() if key not in inside}
        return {**card, "options": options, "features": self.extractor.card()}

    def check(self, tasks: Sequence[Task]) -> None:
        """Raise DataError if there are too few images or if the reference does not exist."""
        if len(tasks) < MIN_SET_IMAGES:
            raise DataError(
                f"metric '{self.name}' needs at least {MIN_SET_IMAGES} images, found {len(tasks)}: "
                "evaluate more prompts"
            )
        check_reference(self.config.reference, tasks)

    def free(self) -> None:
        """Free the extractor's weights."""
        self.extractor.free()
