"""What evaluation passes around: a prompt to draw, a picture's score, a metric, and a suite of prompts.

Suite (YAML) -> Task, Task, ... -> pictures -> Metric -> Score per picture -> Estimate per category
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable
from zlib import crc32

import yaml
from PIL import Image
from pydantic import Field

from lavibridge.core.config import Config, did_you_mean, validate
from lavibridge.core.errors import DataError, RecipeError

SUITES = Path(__file__).parent / "suites"


@runtime_checkable
class Draws(Protocol):
    """Anything that draws prompts, a bridge above all."""

    def generate(
        self, prompts: Sequence[str], seed: Sequence[int], steps: int, guidance: float
    ) -> list[Image.Image]:
        """One picture for each prompt, each from its own seed."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A prompt to draw once, from a noise that is the same for every system."""

    category: str
    prompt: str
    seed: int
    truth: object
    """What the metric needs to know about the prompt; the world's metric needs its spec."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells tasks apart in the records of a run."""
        return self.category, self.prompt, self.seed


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a metric says of one picture: a value (NaN = not scored, kept and counted), clauses, and why."""

    value: float
    clauses: Mapping[str, bool] = field(default_factory=dict)
    detail: Mapping[str, str] = field(default_factory=dict)


class Metric(ABC):
    """Judges pictures one by one."""

    @abstractmethod
    def tasks(self, category: str, count: int) -> list[tuple[str, object]]:
        """The first `count` prompts of a category, always the same, each with what `score` needs to know."""

    @abstractmethod
    def score(self, picture: Image.Image, truth: object) -> Score:
        """The score of one picture."""


class Suite(Config):
    """Prompts by category and how to draw them, as a YAML file says."""

    name: str
    """The suite's name; goes into results."""
    version: int
    """Raised whenever a change makes scores incomparable."""
    metric: str
    """The file in `evaluation/metrics` that judges."""
    categories: dict[str, int] = Field(min_length=1)
    """Prompts per category."""
    seeds: int = Field(default=1, ge=1)
    """Pictures per prompt."""
    steps: int = Field(default=20, ge=1)
    """Denoising steps."""
    guidance: float = Field(default=4.0, ge=1)
    """Guidance scale."""


def read_suite(suite: str) -> Suite:
    """A shipped suite by name, or any by the path to its YAML file. RecipeError says what is wrong."""
    shipped = {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}
    path = shipped.get(suite, Path(suite))
    if not path.is_file():
        raise RecipeError(
            f"there is no suite '{suite}'{did_you_mean(suite, tuple(shipped))} "
            f"(shipped: {', '.join(shipped)}; or give the path to a YAML file)"
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(found, dict):
        raise RecipeError(f"{path} holds no keys; a suite has name, version, metric and categories")
    return validate(Suite, found, str(path))


def noise_seed(suite: Suite, category: str, prompt: str, number: int, seed: int) -> int:
    """The seed of a picture's noise: a function of the prompt, so that all systems begin from the same."""
    return crc32(f"{suite.name}/{category}/{prompt}/{number}/{seed}".encode())


def pick(suite: Suite, categories: Sequence[str] | None) -> tuple[str, ...]:
    """The categories to evaluate, all by default; raises DataError for one that the suite has not."""
    for name in categories or ():
        if name not in suite.categories:
            raise DataError(
                f"suite '{suite.name}' has no category '{name}'{did_you_mean(name, tuple(suite.categories))} "
                f"(there are {', '.join(suite.categories)})"
            )
    return tuple(categories) if categories else tuple(suite.categories)
