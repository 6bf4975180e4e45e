"""Whose pictures a folder holds: they are used again only where nothing that they depend on has changed.

    settings.json   {suite, version, prompts, steps, guidance, quality, seed, seeds, drawn_by, made_with}
    drawn_by        the bridge's parts by content (bridge/identity.py), or what else draws
    made_with       versions of the libraries that draw, and the kind of device
    drawn_with      the short hash of all this, in every record and in results.json

So pictures of two bridges are told apart one by one, whoever has put them into one folder, and when. Another
`made_with` is let pass where nothing is left to draw: the pictures are those of the old one.
"""

from collections.abc import Mapping
from json import dumps, loads
from pathlib import Path
from typing import Any

from lavibridge.bridge import Bridge
from lavibridge.bridge.identity import identity, surroundings
from lavibridge.bridge.store import saved_as
from lavibridge.core.errors import RunError
from lavibridge.core.files import read_json, write_json
from lavibridge.core.identity import card_hash
from lavibridge.evaluation.base import ImageGenerator
from lavibridge.evaluation.records import Key, Record, read_records

SETTINGS = "settings.json"
RESULTS = "results.json"
ADVICE = "give another --out, or delete images and records*.jsonl there to draw anew"
UNKNOWN_PROVENANCE = (
    "was evaluated by an earlier version of lavibridge, which did not note down which bridge it was: its "
    "pictures may be another checkpoint's"
)
PLACES = ("folder", "pictures")
"""What an origin says of where something lies, which decides nothing."""


def provenance_of(bridge: Bridge | ImageGenerator) -> dict[str, dict[str, str]]:
    """What draws, by content, and with which libraries and device."""
    if isinstance(bridge, Bridge):
        return {"drawn_by": identity(bridge), "made_with": surroundings(bridge)}
    told = {name: value for name, value in bridge.origin.items() if name not in PLACES}
    return {"drawn_by": told, "made_with": {}}


def resolve_settings(
    out: Path, settings: Mapping[str, Any], records: Mapping[Key, Record], is_complete: bool
) -> dict[str, Any]:
    """The settings that a folder's pictures are drawn with, noted in it.

    RunError where its pictures were drawn by another bridge, with other settings, or nobody knows by which.
    """
    now: dict[str, Any] = loads(dumps(settings))
    if not records:
        (out / RESULTS).unlink(missing_ok=True)  # of pictures that are gone
        write_json(out / SETTINGS, now)
        return now
    before = read_json(out / SETTINGS) if (out / SETTINGS).is_file() else None
    if not isinstance(before, dict) or "drawn_by" not in before:
        raise RunError(f"{out} {UNKNOWN_PROVENANCE}; {ADVICE}")
    check_provenance(out, records, card_hash(before))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not changed or (changed == ["made_with"] and is_complete):
        return before
    if "drawn_by" in changed:
        parts = _differing(before["drawn_by"], now["drawn_by"])
        raise RunError(
            f"{out} holds pictures of another bridge, or of this one before more training (other is its "
            f"{', '.join(parts)}): {ADVICE}"
        )
    then, today = ({name: each.get(name) for name in changed} for each in (before, now))
    raise RunError(f"{out} holds pictures drawn with {then}, not {today}: {ADVICE}")


def holds_other_images(out: Path, bridge: Bridge | ImageGenerator) -> bool:
    """Whether a folder holds pictures that this bridge has not drawn, or that nobody knows by which."""
    if not any(out.glob("records*.jsonl")):
        return False
    before = read_json(out / SETTINGS) if (out / SETTINGS).is_file() else {}
    return any(before.get(name) != value for name, value in provenance_of(bridge).items())


def check_provenance(out: Path, records: Mapping[Key, Record], drawn_with: str) -> None:
    """RunError where not all records are of pictures that were drawn with these settings."""
    others = sum(record.drawn_with != drawn_with for record in records.values())
    if others:
        raise RunError(
            f"{out} holds pictures of two bridges, or of two settings: {others} of {len(records)} were not "
            f"drawn with its {SETTINGS}; {ADVICE}"
        )


def read_results(folder: Path) -> Mapping[str, Any]:
    """What `lavi evaluate` found; RunError where there is nothing, or nobody knows of which bridge."""
    path = folder / RESULTS
    if not path.is_file():
        raise RunError(f"{folder} holds no {RESULTS}: name the folder that `lavi evaluate` wrote to")
    found = read_json(path)
    if not isinstance(found, dict) or "metrics" not in found:
        raise RunError(f"{path} is of an older version: evaluate anew")
    if "drawn_with" not in found:
        raise RunError(f"{folder} {UNKNOWN_PROVENANCE}: evaluate anew, into another --out")
    return found


def matches_run(run: Path, results: Mapping[str, Any]) -> bool:
    """Whether results are of the bridge that a run holds now, as far as both say which one that is."""
    now = saved_as(run)
    return now is None or (results.get("bridge") or {}).get("sha256", now) == now


def read_scored_records(folder: Path, results: Mapping[str, Any]) -> dict[Key, Record]:
    """The records that results are made of: scores under their cards, of pictures of their bridge."""
    cards = {name: card_hash(each["card"]) for name, each in results["metrics"].items() if "all" in each}
    records = read_records(folder, cards)
    check_provenance(folder, records, results["drawn_with"])
    return records


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
