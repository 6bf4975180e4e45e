"""The values of an evaluation: a prompt, a task (an image to generate for it), and a score.

    suite (YAML) -> prompt source -> Prompt -> Task -> image -> metric -> Score -> Estimate

Prompt sources (`evaluation/prompts`) and metrics (`evaluation/metrics`) are independent: a metric scores the
images of any prompts that have the metadata it needs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image


@runtime_checkable
class ImageGenerator(Protocol):
    """Anything that generates an image for each prompt, such as a bridge."""

    origin: dict[str, str]
    """Its source, for the results: a folder and its hash. For a generator that is not a bridge, this also
    identifies its images."""

    distilled_guidance_scale: float | None
    """The guidance scale that was distilled into the model; if None, the suite's guidance applies."""

    def generate(
        self,
        prompts: Sequence[str],
        seed: Sequence[int],
        num_inference_steps: int,
        guidance_scale: float | None,
        quality: str,
    ) -> list[Image.Image]:
        """Return one image per prompt, each from its own seed; `guidance_scale` None means the default."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt of a suite."""

    category: str
    text: str
    metadata: object = None
    """Data that metrics need in addition to the text, such as the world's spec or a benchmark's questions."""
    name: str = ""
    """Its name in the benchmark's own files, if it has one."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An image to generate: a prompt, and a seed that is the same for every system."""

    category: str
    prompt: str
    seed: int
    metadata: object = None
    name: str = ""
    file: str
    """The image's path relative to the evaluation's folder; it does not depend on the prompt's words."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Identifies the task within an evaluation and across systems."""
        return self.category, self.prompt, self.seed


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric's score of one image."""

    value: float
    """NaN means not scored: recorded and counted, never averaged."""
    clauses: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    """Partial scores with their own averages, such as one clause of a prompt or several answers."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Evidence for later inspection, as JSON: answers, boxes, errors."""
    reason: str = ""
    """The reason why there is no value; empty if there is one."""

    def __post_init__(self) -> None:
        if self.reason:
            if not math.isnan(self.value):
                raise ValueError(f"a Score is a number or a reason why there is none, found {self}")
            return
        flat = {"value": self.value, **self.clauses}
        odd = [name for name, found in flat.items() if not np.isfinite(found).all()]
        if odd:  # the metric's own arithmetic failed: record that, average nothing
            named = "value" if odd[0] == "value" else f"clause '{odd[0]}'"
            for name, empty in (("value", math.nan), ("clauses", {})):
                object.__setattr__(self, name, empty)
            object.__setattr__(self, "reason", f"the metric's {named} is not finite")


def unscored_score(reason: str, detail: Mapping[str, Any] | None = None) -> Score:
    """Make the score of an image that a metric cannot score."""
    return Score(value=math.nan, reason=reason, detail=detail or {})


@dataclass(frozen=True, kw_only=True)
class ScoredTask:
    """A task with its score, the input of a metric's totals; `score.value` may be NaN."""

    category: str
    prompt: str
    seed: int
    score: Score
