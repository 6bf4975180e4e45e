"""A suite as a YAML file: which prompts, how they are drawn, and who judges the pictures.

    name: world-and-clip
    version: 1
    prompts: {kind: world, categories: {one: 300}}
    metrics: [world, {kind: clip_score, model: mini-clip}]
    seeds: 1

Kinds are the files of `prompts` and `metrics`; what else stands beside `kind` are that kind's own options.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from lavibridge.core import registry
from lavibridge.core.config import Config, did_you_mean, validate
from lavibridge.core.errors import RecipeError
from lavibridge.core.yaml_text import read_yaml_file
from lavibridge.evaluation.metrics.base import Metric
from lavibridge.evaluation.prompts.base import PromptSource
from lavibridge.evaluation.shipped import shipped_suites

ComponentConfig = str | dict[str, Any]
"""A kind, or its options with `kind` beside them."""


class Suite(Config):
    """Prompts, how to draw them, and metrics."""

    name: str
    """The suite's name; goes into results."""
    version: int
    """Raised whenever a change makes scores incomparable."""
    prompts: ComponentConfig
    """Where prompts come from: a kind, or its options with `kind`."""
    metrics: tuple[ComponentConfig, ...] = Field(min_length=1)
    """Who judges: kinds, or their options with `kind`."""
    seeds: int = Field(default=1, ge=1)
    """Pictures per prompt."""
    steps: int = Field(default=20, ge=1)
    """Denoising steps."""
    guidance: float | None = Field(default=None, ge=1)
    """Guidance scale; the image model's own by default."""


def read_suite(suite: str) -> Suite:
    """A shipped suite by name, or any by the path to its YAML file. RecipeError says what is wrong."""
    shipped = shipped_suites()
    path = shipped.get(suite, Path(suite))
    if not path.is_file():
        raise RecipeError(
            f"there is no suite '{suite}'{did_you_mean(suite, tuple(shipped))} "
            f"(shipped: {', '.join(shipped)}; or give the path to a YAML file)"
        )
    found = read_yaml_file(path)
    if not isinstance(found, dict):
        raise RecipeError(f"{path} holds no keys; a suite has name, version, prompts and metrics")
    return validate(Suite, found, str(path))


def open_prompts(value: ComponentConfig, path: str | None = None) -> PromptSource:
    """The source that a suite names, its files read; `path` goes before the suite's own."""
    given = {} if path is None else {"path": path}
    source: PromptSource = _made("evaluation.prompts", "prompts", value, given)
    return source


def open_metrics(
    values: Sequence[ComponentConfig], more: Sequence[ComponentConfig], known: tuple[str, ...]
) -> list[Metric]:
    """The metrics of a suite and `more`, which replace those of the same name; their files are found.

    RecipeError where two have one name, or where one asks for a category that is not `known`.
    """
    replaced = {_name(value) for value in more}
    found = _by_name([*(value for value in values if _name(value) not in replaced), *more])
    for metric in found.values():
        for category in metric.config.categories or ():
            if category not in known:
                raise RecipeError(
                    f"metrics.{metric.name}.categories: there is no '{category}'"
                    f"{did_you_mean(category, known)} (there are {', '.join(known)})"
                )
    return list(found.values())


def _by_name(values: Sequence[ComponentConfig]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for value in values:
        metric: Metric = _made("evaluation.metrics", "metrics", value, {})
        if metric.name in found:
            raise RecipeError(
                f"metrics: two are called '{metric.name}'; name one: {{kind: {metric.kind}, name: ...}}"
            )
        found[metric.name] = metric
    return found


def _name(value: ComponentConfig) -> Any:
    return value if isinstance(value, str) else value.get("name") or value.get("kind")


def _made(room: str, where: str, value: ComponentConfig, given: dict[str, str]) -> Any:
    options = {"kind": value} if isinstance(value, str) else dict(value)
    if "kind" not in options:
        raise RecipeError(f"{where}: `kind` is missing (kinds: {', '.join(registry.kinds(room))})")
    kind = str(options.pop("kind"))
    component = registry.load(room, kind)
    return component(validate(component.Config, {**options, **given}, f"{where}.{kind}"))
