"""What evaluation passes around: a prompt of a suite, a picture to draw of it, and what a metric says of one.

    suite (YAML) -> prompt source -> Prompt -> Task -> picture -> metric -> Score -> Estimate

Where prompts come from (`evaluation/prompts`) and who judges (`evaluation/metrics`) are two things: any
metric judges the pictures of any prompts that carry what it has to know.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image


@runtime_checkable
class ImageGenerator(Protocol):
    """Anything that draws prompts, a bridge above all."""

    origin: dict[str, str]
    """What it is, for the results: the folder that it was read from and its hash. Of what is no bridge, this
    is also what its pictures are known by."""

    distilled_guidance_scale: float | None
    """The guidance that it draws under without being guided; None: none, so that a suite's is used."""

    def generate(
        self, prompts: Sequence[str], seed: Sequence[int], steps: int, guidance: float | None, quality: str
    ) -> list[Image.Image]:
        """One picture for each prompt, each from its own seed; without guidance at the model's own."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt of a suite."""

    category: str
    text: str
    metadata: object = None
    """What metrics have to know beyond the text: the world's spec, a benchmark's questions."""
    name: str = ""
    """What the benchmark's own files call it, where they do."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A picture to draw: a prompt and a noise that is the same for every system."""

    category: str
    prompt: str
    seed: int
    metadata: object = None
    name: str = ""
    file: str
    """Where the picture lies below the folder of the evaluation; never made of the prompt's words."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells tasks apart, in one evaluation and across those of several systems."""
        return self.category, self.prompt, self.seed


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a metric says of one picture."""

    value: float
    """NaN = not scored: kept, counted, and never averaged."""
    clauses: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    """Parts of the value that are averaged on their own, where they apply: a verdict, or several answers."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What a person may ask about afterwards, as JSON: answers, boxes, what was wrong."""
    reason: str = ""
    """Why there is no value; empty where there is one."""

    def __post_init__(self) -> None:
        if self.reason:
            if not math.isnan(self.value):
                raise ValueError(f"a Score is a number or a reason why there is none, found {self}")
            return
        flat = {"value": self.value, **self.clauses}
        odd = [name for name, found in flat.items() if not np.isfinite(found).all()]
        if odd:  # a metric's own arithmetic failed: said, and averaged nowhere
            named = "value" if odd[0] == "value" else f"clause '{odd[0]}'"
            for name, empty in (("value", math.nan), ("clauses", {})):
                object.__setattr__(self, name, empty)
            object.__setattr__(self, "reason", f"the metric's {named} is not finite")


def unscored(reason: str, detail: Mapping[str, Any] | None = None) -> Score:
    """The score of a picture that could not be scored."""
    return Score(value=math.nan, reason=reason, detail=detail or {})


@dataclass(frozen=True, kw_only=True)
class ScoredTask:
    """A task with its score, as the totals of a metric read it; `score.value` may be NaN."""

    category: str
    prompt: str
    seed: int
    score: Score
