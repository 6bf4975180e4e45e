"""The format of bridge.json, and the check of one that somebody else wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.core.errors import RunError

FORMAT = 3
"""Unreleased versions wrote the formats 1 and 2."""
PARTS = ("language", "vision", "connector", "language_lora", "vision_lora")
"""The arguments of ``Bridge.compose``."""


def check_description(description: Any, path: Path) -> None:
    """Raise RunError if bridge.json has another format or lacks a field."""
    known = description if isinstance(description, dict) else {}
    wrong = [] if "format" in known else ["format"]
    if not wrong and known["format"] != FORMAT:
        writer = f"lavibridge {known['lavibridge']}" if "lavibridge" in known else "an earlier version"
        raise RunError(
            f"{path} has format {known['format']!r}, written by {writer}, but this version reads format "
            f"{FORMAT}: load it with the version that wrote it, or train again"
        )
    if not wrong:
        optional = [name for name in PARTS if name.endswith("_lora") and known.get(name, 0) is None]
        wrong = [
            name
            for name in ("files", "folded", *PARTS)
            if name not in optional and not isinstance(known.get(name), dict)
        ]
        wrong += [name for name in ("language", "vision") if not wrong and not _names_a_model(known[name])]
        wrong += [] if wrong or isinstance(known["connector"].get("kind", ""), str) else ["connector"]
        scale = known.get("distilled_guidance_scale", "")
        wrong += [] if scale is None or type(scale) in (int, float) else ["distilled_guidance_scale"]
        wrong += [] if wrong or _is_folded(known["folded"]) else ["folded"]
    if wrong:
        raise RunError(f"{path} is damaged, as its '{wrong[0]}' is missing or invalid: take another copy")


def _names_a_model(options: Mapping[str, Any]) -> bool:
    """Whether the options have a source, and texts where texts belong."""
    optional = [options.get(name) for name in ("kind", "revision", "config", "variant")]
    return isinstance(options.get("source"), str) and all(
        isinstance(value, str | type(None)) for value in optional
    )


def _is_folded(folded: Mapping[str, Any]) -> bool:
    """Whether the entry lists name, hash and strength of LoRA files by model."""
    each = [entry for entries in folded.values() if isinstance(entries, list) for entry in entries]
    return (
        folded.keys() <= {"language", "vision"}
        and all(isinstance(entries, list) for entries in folded.values())
        and all(isinstance(entry, dict) and entry.keys() == {"name", "sha256", "strength"} for entry in each)
        and all(isinstance(entry[name], str) for entry in each for name in ("name", "sha256"))
        and all(type(entry["strength"]) in (int, float) for entry in each)
    )
