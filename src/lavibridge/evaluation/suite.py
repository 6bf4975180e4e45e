"""A suite as a YAML file: the prompts, the sampling settings and the metrics.

    name: world-and-clip
    version: 1
    prompts: {kind: world, categories: {one: 300}}
    metrics: [world, {kind: clip_score, model: mini-clip}]
    seeds: 1

The kinds are the files of `prompts` and `metrics`; their other keys are that kind's options.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from lavibridge.core import registry
from lavibridge.core.config import Config, validate_config
from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.core.yaml_text import read_yaml_file
from lavibridge.evaluation.metrics.base import Metric
from lavibridge.evaluation.prompts.base import PromptSource
from lavibridge.evaluation.shipped import shipped_suites

ComponentConfig = str | dict[str, Any]
"""A kind, or a mapping of its options and `kind`."""


class Suite(Config):
    """Prompts, sampling settings and metrics."""

    name: str
    """The suite's name, as results record it."""
    version: int
    """Increases with every change that makes scores incomparable."""
    prompts: ComponentConfig
    """Where prompts come from: a kind, or its options with `kind`."""
    metrics: tuple[ComponentConfig, ...] = Field(min_length=1)
    """The metrics: kinds, or their options with `kind`."""
    seeds: int = Field(default=1, ge=1)
    """Pictures per prompt."""
    steps: int = Field(default=20, ge=1)
    """Denoising steps."""
    guidance: float | None = Field(default=None, ge=1)
    """Guidance scale; the vision model's default if null."""


def read_suite(suite: str) -> Suite:
    """Read a suite: a shipped one by name, or any by its path. Raises RecipeError if it is invalid."""
    shipped = shipped_suites()
    path = shipped.get(suite, Path(suite))
    if not path.is_file():
        raise RecipeError(
            f"there is no suite '{suite}'{did_you_mean(suite, tuple(shipped))} "
            f"(choose from {', '.join(shipped)}, or give the path to a YAML file)"
        )
    found = read_yaml_file(path)
    if not isinstance(found, dict):
        raise RecipeError(f"{path} must be a mapping with name, version, prompts and metrics")
    return validate_config(Suite, found, str(path))


def open_suite_prompts(value: ComponentConfig, path: str | None = None) -> PromptSource:
    """Open the prompt source of a suite and read its files; `path` overrides the suite's own."""
    overrides = {} if path is None else {"path": path}
    source: PromptSource = _open("evaluation.prompts", "prompts", value, overrides)
    return source


def open_suite_metrics(
    values: Sequence[ComponentConfig], more: Sequence[ComponentConfig], known: tuple[str, ...]
) -> list[Metric]:
    """Open the metrics of a suite and `more`, which replace those of the same name.

    Raises RecipeError if two share a name or one names a category that is not `known`.
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
        metric: Metric = _open("evaluation.metrics", "metrics", value, {})
        if metric.name in found:
            raise RecipeError(
                f"metrics: two have the name '{metric.name}'; rename one: {{kind: {metric.kind}, name: ...}}"
            )
        found[metric.name] = metric
    return found


def _name(value: ComponentConfig) -> Any:
    return value if isinstance(value, str) else value.get("name") or value.get("kind")


def _open(package: str, where: str, value: ComponentConfig, overrides: dict[str, str]) -> Any:
    options = {"kind": value} if isinstance(value, str) else dict(value)
    if "kind" not in options:
        raise RecipeError(f"{where}: `kind` is missing (kinds: {', '.join(registry.kinds(package))})")
    kind = str(options.pop("kind"))
    component = registry.load_kind(package, kind)
    return component(validate_config(component.Config, {**options, **overrides}, f"{where}.{kind}"))
