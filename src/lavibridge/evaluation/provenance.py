"""Records which bridge generated a folder's images, and reuses them only if none of their inputs has changed.

    settings.json   {suite, version, prompts, steps, guidance, quality, seed, seeds, drawn_by, made_with}
    drawn_by        the bridge's parts by content (bridge/identity.py), or the origin of another generator
    made_with       library versions and the kind of device
    drawn_with      the short hash of settings.json, in every record and in results.json

Every image is therefore traceable to its bridge. A changed `made_with` is allowed if no image is left to
generate, because the existing images keep theirs.
"""

from collections.abc import Mapping
from json import dumps, loads
from pathlib import Path
from typing import Any

from lavibridge.bridge import Bridge
from lavibridge.bridge.identity import bridge_environment, bridge_identity
from lavibridge.bridge.saved_bridge import saved_bridge_hash
from lavibridge.core.errors import RunError
from lavibridge.core.files import read_json, read_json_object, write_json
from lavibridge.core.identity import card_hash
from lavibridge.evaluation.base import ImageGenerator
from lavibridge.evaluation.records import Record, RecordKey, read_records

_SETTINGS = "settings.json"
RESULTS_FILE = "results.json"
PROVENANCE_ADVICE = "choose another --out, or delete its images and records*.jsonl to generate again"
_UNKNOWN_PROVENANCE = (
    "holds an evaluation by an earlier version of lavibridge, which did not record the bridge, so its images "
    "may be of another checkpoint"
)
_PLACES = ("folder", "pictures")
"""Keys of an origin that hold paths, which do not identify images."""


def provenance_of(bridge: Bridge | ImageGenerator) -> dict[str, dict[str, str]]:
    """Identify the generator by content, with library versions and kind of device."""
    if isinstance(bridge, Bridge):
        return {"drawn_by": bridge_identity(bridge), "made_with": bridge_environment(bridge)}
    origin = {name: value for name, value in bridge.origin.items() if name not in _PLACES}
    return {"drawn_by": origin, "made_with": {}}


def resolve_image_settings(
    out: Path, settings: Mapping[str, Any], records: Mapping[RecordKey, Record], is_complete: bool
) -> dict[str, Any]:
    """Write or check the settings of a folder's images, and return them.

    Raises RunError if an unknown, another, or a differently configured bridge generated its images.
    """
    now: dict[str, Any] = loads(dumps(settings))
    if not records:
        (out / RESULTS_FILE).unlink(missing_ok=True)  # the images of these results no longer exist
        write_json(out / _SETTINGS, now)
        return now
    before = read_json(out / _SETTINGS) if (out / _SETTINGS).is_file() else None
    if not isinstance(before, dict) or "drawn_by" not in before:
        raise RunError(f"{out} {_UNKNOWN_PROVENANCE}; {PROVENANCE_ADVICE}")
    check_provenance(out, records, card_hash(before))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not changed or (changed == ["made_with"] and is_complete):
        return before
    if "drawn_by" in changed:
        parts = _differing(before["drawn_by"], now["drawn_by"])
        raise RunError(
            f"{out} holds images of another bridge, or of this one before further training (changed: "
            f"{', '.join(parts)}): {PROVENANCE_ADVICE}"
        )
    then, today = ({name: each.get(name) for name in changed} for each in (before, now))
    raise RunError(f"{out} holds images generated with {then}, not {today}: {PROVENANCE_ADVICE}")


def holds_other_images(out: Path, bridge: Bridge | ImageGenerator) -> bool:
    """Whether a folder holds images of another or an unknown bridge."""
    if not any(out.glob("records*.jsonl")):
        return False
    before = read_json_object(out / _SETTINGS) if (out / _SETTINGS).is_file() else {}
    return any(before.get(name) != value for name, value in provenance_of(bridge).items())


def check_provenance(out: Path, records: Mapping[RecordKey, Record], drawn_with: str) -> None:
    """Raise RunError unless every record's image was generated with these settings."""
    others = sum(record.drawn_with != drawn_with for record in records.values())
    if others:
        raise RunError(
            f"{out} holds images of two bridges or settings: {others} of {len(records)} do not match "
            f"its {_SETTINGS}; {PROVENANCE_ADVICE}"
        )


def read_results(folder: Path) -> Mapping[str, Any]:
    """Read the results.json of `lavi evaluate`. Raises RunError if there is none or its bridge is unknown."""
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise RunError(f"{folder} holds no {RESULTS_FILE}: give the folder that `lavi evaluate` wrote")
    found = read_json(path)
    if not isinstance(found, dict) or "metrics" not in found:
        raise RunError(f"{path} was written by an older version: evaluate again")
    if "drawn_with" not in found:
        raise RunError(f"{folder} {_UNKNOWN_PROVENANCE}: evaluate again with another --out")
    if fault := results_fault(found):
        raise RunError(f"{path} is damaged, as its '{fault}' is missing or invalid: evaluate again")
    return found


def results_fault(results: Mapping[str, Any]) -> str | None:
    """Return the name of a missing or invalid field of results.json; None if there is none."""
    kinds = {"suite": str, "version": int, "metrics": dict, "drawn_with": str, "bridge": dict | None}
    for name, kind in kinds.items():
        if not isinstance(results.get(name), kind):
            return name
    for name, metric in results["metrics"].items():
        whole = isinstance(metric, dict) and ("all" not in metric or _is_scored(metric))
        if not whole:
            return f"metrics.{name}"
    return None


def _is_scored(metric: Mapping[str, Any]) -> bool:
    categories = metric.get("categories")
    scores = [metric["all"], *categories.values()] if isinstance(categories, dict) else [None]
    return isinstance(metric.get("card"), dict) and all(isinstance(each, dict) for each in scores)


def matches_run(run: Path, results: Mapping[str, Any]) -> bool:
    """Whether results are of the run's current bridge; True if the run has no hash to compare."""
    now = saved_bridge_hash(run)
    return now is None or (results.get("bridge") or {}).get("sha256", now) == now


def read_scored_records(folder: Path, results: Mapping[str, Any]) -> dict[RecordKey, Record]:
    """Read the records behind results: scores with the same cards, of images by the same bridge."""
    cards = {name: card_hash(each["card"]) for name, each in results["metrics"].items() if "all" in each}
    records = read_records(folder, cards)
    check_provenance(folder, records, results["drawn_with"])
    return records


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
