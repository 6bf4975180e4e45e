"""The fingerprint of a run: its data, its base models, and how many samples make a step.

Every checkpoint holds it. A run continues only if all three are the same, even if files have moved. Positions
count samples, so steps of equal size have the same samples, however batches, passes and processes divide
them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavibridge.bridge.lora_files import lora_file_at, lora_file_hash
from lavibridge.bridge.saved_bridge import SavedBridge
from lavibridge.core.identity import source_identity
from lavibridge.core.weight_changes import lora_identity
from lavibridge.data.base import Dataset
from lavibridge.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class RunFingerprint:
    """What must stay the same in every session of a run, besides the recipe."""

    data: str
    """Fingerprint of the data."""
    language: str
    """Identity of the language model: a hash of its files, or a hub id and commit."""
    vision: str
    """Identity of the vision model."""
    batch: int
    accumulate: int
    processes: int
    by_shape: bool
    """Whether each pass has images of one shape, so that the size of a pass affects the order."""


def run_fingerprint(recipe: Recipe, dataset: Dataset, processes: int) -> RunFingerprint:
    """Compute the fingerprint of a session; caches the hashes of large model files."""
    return RunFingerprint(
        data=dataset.fingerprint(),
        language=section_fingerprint(recipe.language.model_dump()),
        vision=section_fingerprint(recipe.vision.model_dump()),
        batch=recipe.training.batch,
        accumulate=recipe.training.accumulate,
        processes=processes,
        by_shape=bool(dataset.config.buckets),
    )


def fingerprint_differences(kept: Mapping[str, Any], now: RunFingerprint) -> list[str]:
    """Describe the differences from a checkpoint's fingerprint, in one sentence each."""
    found = [
        f"the {name} was {kept[key]}, is {value}"
        for name, key, value in (
            ("data", "data", now.data),
            ("language model", "language", now.language),
            ("vision model", "vision", now.vision),
        )
        if kept[key] != value
    ]
    factors = ("batch", "accumulate", "processes")
    then = [int(kept[key]) for key in factors]
    today = [now.batch, now.accumulate, now.processes]
    if _product(then) != _product(today):
        found.append(
            f"a step was training.batch x training.accumulate x processes = {_sum(then)} pictures, "
            f"is {_sum(today)}"
        )
    elif now.by_shape and then[0] * then[2] != today[0] * today[2]:
        found.append(
            f"a pass was training.batch x processes = {_sum(then[::2])} pictures of one shape, "
            f"is {_sum(today[::2])} (data.buckets)"
        )
    return found


def section_fingerprint(section: Mapping[str, Any] | str) -> str:
    """The identity of the model, or of the two models, that a section names."""
    if isinstance(section, str):
        return source_identity(section)
    selected = (section.get(name) for name in ("revision", "config", "variant"))
    own = source_identity(str(section["source"]), *selected)
    for each in section.get("lora_files", ()):
        own += (
            f" with LoRA {lora_identity(lora_file_hash(lora_file_at(Path(each['path']))), each['strength'])}"
        )
    beside = section.get("passthrough")
    return own if beside is None else f"{own} and {section_fingerprint(beside)}"


def stored_fingerprint(stored: SavedBridge, package: str) -> str:
    """Return the identity of the language or vision model of a saved bridge, with the LoRA files in it."""
    own = section_fingerprint(stored.language if package == "language" else stored.vision)
    for each in stored.folded.get(package, ()):
        own += f" with LoRA {lora_identity(each['sha256'], each['strength'])}"
    return own


def _product(factors: list[int]) -> int:
    made = 1
    for factor in factors:
        made *= factor
    return made


def _sum(factors: list[int]) -> str:
    return f"{' x '.join(str(factor) for factor in factors)} = {_product(factors)}"
