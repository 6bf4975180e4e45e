"""The values that evaluation passes around: a prompt, a picture to draw for it, and a score.

    suite (YAML) -> prompt source -> Prompt -> Task -> picture -> metric -> Score -> Estimate

Prompt sources (`evaluation/prompts`) and metrics (`evaluation/metrics`) are independent: a metric scores the
pictures of any prompts that carry the metadata it needs.
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
    """What the results record: the folder it was read from and its hash. For anything but a bridge, this also
    identifies its pictures."""

    distilled_guidance_scale: float | None
    """The guidance scale that the model has distilled; None if it has none, so that the suite's applies."""

    def generate(
        self,
        prompts: Sequence[str],
        seed: Sequence[int],
        num_inference_steps: int,
        guidance_scale: float | None,
        quality: str,
    ) -> list[Image.Image]:
        """Return one image per prompt, each from its own seed; no `guidance_scale` uses the default."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt of a suite."""

    category: str
    text: str
    metadata: object = None
    """What metrics need beyond the text, such as the world's spec or a benchmark's questions."""
    name: str = ""
    """Its name in the benchmark's own files, if it has one."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A picture to draw: a prompt, and a seed that is the same for every system."""

    category: str
    prompt: str
    seed: int
    metadata: object = None
    name: str = ""
    file: str
    """The picture's path relative to the evaluation's folder; never derived from the prompt's words."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Identifies the task within an evaluation and across systems."""
        return self.category, self.prompt, self.seed


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric's score of one picture."""

    value: float
    """NaN means not scored: recorded and counted, never averaged."""
    clauses: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    """Parts that are averaged on their own, such as one clause of a prompt or several answers."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Evidence for later inspection, as JSON: answers, boxes, what was wrong."""
    reason: str = ""
    """Why there is no value; empty if there is one."""

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
    """The score of a picture that could not be scored."""
    return Score(value=math.nan, reason=reason, detail=detail or {})


@dataclass(frozen=True, kw_only=True)
class ScoredTask:
    """A task with its score, the input of a metric's totals; `score.value` may be NaN."""

    category: str
    prompt: str
    seed: int
    score: Score
