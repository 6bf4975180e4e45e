"""A study as a YAML file: a question, a grid of recipes, how each is measured, and the rows of the table.

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

`axes` instead of `conditions` are multiplied: every choice of the first with every choice of the second.
"""

import re
from collections.abc import Iterable
from itertools import product
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lavibridge.core.config import Config, Seed, did_you_mean
from lavibridge.evaluation.suite import ComponentConfig

JOIN = "_"
"""Between the names of choices from several axes."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Condition(Config):
    """A named change of the recipe: a whole condition, or what it has from one axis."""

    name: str
    """Names the folder: letters, figures and . _ -."""
    label: str | None = None
    """What tables call it; by default its name."""
    recipe: str | None = None
    """Another recipe to start from than the study's."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Fields of the recipe by dotted path, such as `connector.read: last`. A new kind empties its section."""
    native: bool = False
    """Train nothing: the recipe's image model under its own text encoder, as it was published."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        """Safe in a path and on a command line."""
        if not NAME.fullmatch(name):
            raise ValueError("a name has letters, figures and . _ -, and names a folder")
        return name


class SuiteUse(Config):
    """A suite, and how much of it; the options are those of `lavi evaluate`."""

    suite: str
    """A shipped suite's name, or a path to a YAML file (from the study's own folder, or from here)."""
    categories: tuple[str, ...] | None = None
    """Only these categories."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many prompts of each category."""
    prompts: str | None = None
    """The suite's prompt file or folder, where it is not shipped."""
    metrics: tuple[ComponentConfig, ...] = ()
    """More metrics: kinds, or their options with `kind`."""
    steps: int | None = Field(default=None, ge=1)
    """Denoising steps; the suite's by default."""
    guidance: float | None = Field(default=None, ge=1)
    """Guidance scale; the suite's by default."""
    quality: Literal["exact", "high", "fast"] = "exact"
    """How much work a picture is worth; `fast` brings its own number of steps."""


class RowSpec(Config):
    """A row of the table: what one metric says of some categories of a suite."""

    name: str
    """What the table calls it, as a paper does."""
    suite: str
    """The key of the suite among `suites`."""
    metric: str = "world"
    """The metric's name in the results."""
    categories: tuple[str, ...] | None = None
    """The categories that count; all that the metric judges by default."""
    clause: str | None = None
    """A part of the metric, such as the checker's `color`, instead of its whole score."""
    better: Literal["higher", "lower"] = "higher"
    """Which way is better."""


class Claim(Config):
    """What somebody says, as a comparison that the study can decide."""

    says: str
    """The claim in words, and who makes it."""
    better: str
    """The condition that is said to be better."""
    than: str
    """The one that it is said to be better than."""
    rows: tuple[str, ...] = Field(min_length=1)
    """The rows in which it should show."""


class Study(Config):
    """A question, the grid of recipes that answers it, and the table."""

    name: str
    """Names the folder below `runs`."""
    question: str
    """What is asked, in a sentence."""
    notes: str = ""
    """What a reader has to know of the set-up."""
    recipe: str
    """The recipe that all start from: a shipped one's name, or a path (from the study's folder, or here)."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Fields of the recipe that are the same for all, such as the budget, by dotted path."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    """`training.seed` of the cells of each condition; each also draws its pictures from noises of its own."""
    conditions: tuple[Condition, ...] = ()
    """The conditions one by one; or give `axes`."""
    axes: dict[str, tuple[Condition, ...]] = Field(default_factory=dict)
    """The conditions as a product: choices by the name of their axis."""
    baseline: str | None = None
    """The condition that the others are compared with; by default the first."""
    suites: dict[str, SuiteUse] = Field(min_length=1)
    """How each cell is measured, by a name for its folder."""
    rows: tuple[RowSpec, ...] = Field(min_length=1)
    """The rows of the table."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Rows that a reader may look for, and why they are not there."""
    claims: tuple[Claim, ...] = ()
    """What is put to the test."""
    ceiling: bool = False
    """Also ask each language model's features for colours and shapes in words that no caption has."""
    sheet: int = Field(default=1, ge=0)
    """Prompts of each category on the contact sheet; 0 makes none."""
    cache: bool = False
    """Keep encoded pictures in the study's folder, so that its cells encode them once (training.cache)."""

    @model_validator(mode="after")
    def _holds_together(self) -> "Study":
        """Names that are used are there, and only once."""
        if bool(self.conditions) == bool(self.axes):
            raise ValueError("give either `conditions` or `axes`, with at least one choice")
        _only_once("seeds", self.seeds)
        _only_once("rows", [row.name for row in self.rows])
        for name in (self.name, *self.axes, *self.suites):
            if not NAME.fullmatch(name):
                raise ValueError(f"'{name}' names a folder: use letters, figures and . _ -")
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

    def grid(self) -> tuple[Condition, ...]:
        """Every condition, with what it changes, in the order of the file."""
        if self.conditions:
            return self.conditions
        return tuple(_joined(choices) for choices in product(*self.axes.values()))

    def reference(self) -> str:
        """The name of the condition that the others are compared with."""
        return self.baseline or self.grid()[0].name


def _joined(choices: tuple[Condition, ...]) -> Condition:
    """One choice from each axis as a condition; later axes count last."""
    recipes = [choice.recipe for choice in choices if choice.recipe is not None]
    if len(recipes) > 1:
        raise ValueError(f"{' and '.join(choice.name for choice in choices)} both name a recipe: one may")
    return Condition(
        name=JOIN.join(choice.name for choice in choices),
        label=", ".join(choice.label or choice.name for choice in choices),
        recipe=recipes[0] if recipes else None,
        set={path: value for choice in choices for path, value in choice.set.items()},
        native=any(choice.native for choice in choices),
    )


def _only_once(where: str, names: Iterable[Any]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{where}: '{name}' stands there twice")
        seen.add(name)


def _check(where: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(
            f"{where} '{name}' is not there{did_you_mean(name, tuple(known))} (there are {', '.join(known)})"
        )
