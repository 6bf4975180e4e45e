"""A study as a YAML file: a question, a grid of recipes, the suites that measure it, and the table's rows.

    name: read-outs
    question: Which layers should be read?
    recipe: quickstart
    set: {training.steps: 300}
    seeds: [0, 1, 2]
    conditions:
      - {name: last, set: {connector.read: last}}
      - {name: norm-mean, set: {connector.read: norm_mean}}
    suites: {world: {suite: world, limit: 40}}
    rows: [{name: Comp-Color, suite: world, categories: [color]}]

`axes` instead of `conditions` form a product: every choice of the first with every choice of the second.
"""

import re
from collections.abc import Iterable
from itertools import product
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lavibridge.core.config import Config, Seed
from lavibridge.core.errors import did_you_mean
from lavibridge.evaluation.suite import ComponentConfig

_JOIN = "_"
"""Joins the names of choices from several axes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StudyCondition(Config):
    """A named change of the recipe: a whole condition, or one choice of an axis."""

    name: str
    """Also the folder's name: letters, digits and . _ -."""
    label: str | None = None
    """Its label in tables; by default its name."""
    recipe: str | None = None
    """A recipe to start from instead of the study's."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Fields of the recipe by dotted path, such as `connector.read: last`. A new kind clears its section."""
    native: bool = False
    """Evaluate the recipe's vision model with its own text encoder, without training."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        """Check that the name is safe in a path and on a command line."""
        if not _NAME.fullmatch(name):
            raise ValueError("a name is also a folder's name: use letters, digits and . _ -")
        return name


class StudySuite(Config):
    """A suite with the options of `lavi evaluate`."""

    suite: str
    """A shipped suite's name, or a path to a YAML file (from the study's own folder, or from here)."""
    categories: tuple[str, ...] | None = None
    """Only these categories."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum prompts per category."""
    prompts: str | None = None
    """The suite's prompt file or folder, if the package does not ship it."""
    metrics: tuple[ComponentConfig, ...] = ()
    """Additional metrics: kinds, or their options with `kind`."""
    steps: int | None = Field(default=None, ge=1)
    """Denoising steps; the suite's by default."""
    guidance: float | None = Field(default=None, ge=1)
    """Guidance scale; the suite's by default."""
    quality: Literal["exact", "high", "fast"] = "exact"
    """The quality of `lavi generate`; a quality other than `exact` has its own number of steps."""


class StudyRow(Config):
    """A row of the table: one metric on some categories of a suite."""

    name: str
    """Its label in the table."""
    suite: str
    """The key of the suite among `suites`."""
    metric: str = "world"
    """The metric's name in the results."""
    categories: tuple[str, ...] | None = None
    """The categories to include; by default all that the metric applies to."""
    clause: str | None = None
    """A clause of the metric, such as the checker's `color`, instead of its score."""
    better: Literal["higher", "lower"] = "higher"
    """Which way is better."""


class StudyClaim(Config):
    """A published or expected claim, as a comparison that the study can test."""

    says: str
    """The claim in words, and its source."""
    better: str
    """The condition claimed to be better."""
    than: str
    """The condition it is compared with."""
    rows: tuple[str, ...] = Field(min_length=1)
    """The rows to test it on."""


class Study(Config):
    """A question, the grid of recipes that answers it, and the table."""

    name: str
    """Also the folder's name below `runs`."""
    question: str
    """The question in a sentence."""
    comment: str = ""
    """Background on the set-up for readers."""
    recipe: str
    """The recipe that all conditions start from: a shipped one's name, or a path (from the study's folder,
    or here)."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe fields that all conditions share, such as the budget, by dotted path."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    """`training.seed` of the cells of each condition; each also has its own noise seeds."""
    conditions: tuple[StudyCondition, ...] = ()
    """The conditions one by one; or give `axes`."""
    axes: dict[str, tuple[StudyCondition, ...]] = Field(default_factory=dict)
    """The conditions as a product: choices by the name of their axis."""
    baseline: str | None = None
    """The condition to compare the others with; by default the first."""
    suites: dict[str, StudySuite] = Field(min_length=1)
    """The suites that measure each cell, by folder name."""
    rows: tuple[StudyRow, ...] = Field(min_length=1)
    """The rows of the table."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Row that a reader may expect -> the reason why the table lacks it."""
    claims: tuple[StudyClaim, ...] = ()
    """The claims to test."""
    ceiling: bool = False
    """Also measure how much each language model's features know about words that no caption contains."""
    sheet: int = Field(default=1, ge=0)
    """Prompts per category on the contact sheet; 0 for no sheet."""
    cache: bool = False
    """Cache latents in the study's folder, so that all cells encode pictures once (training.cache)."""

    @model_validator(mode="after")
    def _holds_together(self) -> "Study":
        """Check that every name in use exists and is unique."""
        if bool(self.conditions) == bool(self.axes):
            raise ValueError("set either `conditions` or `axes`, with at least one choice")
        _only_once("seeds", self.seeds)
        _only_once("rows", [row.name for row in self.rows])
        for name in (self.name, *self.axes, *self.suites):
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' is also a folder's name: use letters, digits and . _ -")
        for axis, choices in (("conditions", self.conditions), *self.axes.items()):
            _only_once(axis, [choice.name for choice in choices])
            if axis != "conditions" and not choices:
                raise ValueError(f"the axis '{axis}' has no choices")
        known = [condition.name for condition in self.grid()]
        _only_once("axes", known)
        for claim in self.claims:
            for name in (claim.better, claim.than):
                _check("claims: condition", name, known)
            for name in claim.rows:
                _check("claims: row", name, [row.name for row in self.rows])
        if self.baseline is not None:
            _check("baseline: condition", self.baseline, known)
        for row in self.rows:
            _check(f"rows: {row.name}: suite", row.suite, list(self.suites))
        return self

    def grid(self) -> tuple[StudyCondition, ...]:
        """Every condition in the order of the file."""
        if self.conditions:
            return self.conditions
        return tuple(_joined(choices) for choices in product(*self.axes.values()))

    def reference(self) -> str:
        """The name of the condition that the others are compared with."""
        return self.baseline or self.grid()[0].name


def _joined(choices: tuple[StudyCondition, ...]) -> StudyCondition:
    """Combine one choice from each axis into a condition; later axes override earlier ones."""
    recipes = [choice.recipe for choice in choices if choice.recipe is not None]
    if len(recipes) > 1:
        raise ValueError(
            f"{' and '.join(choice.name for choice in choices)} both set a recipe, but only one may"
        )
    return StudyCondition(
        name=_JOIN.join(choice.name for choice in choices),
        label=", ".join(choice.label or choice.name for choice in choices),
        recipe=recipes[0] if recipes else None,
        set={path: value for choice in choices for path, value in choice.set.items()},
        native=any(choice.native for choice in choices),
    )


def _only_once(where: str, names: Iterable[Any]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{where}: '{name}' appears twice")
        seen.add(name)


def _check(where: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(
            f"{where} '{name}' does not exist{did_you_mean(name, tuple(known))} (there are "
            f"{', '.join(known)})"
        )
