"""Summarises a run: its parts, its progress, and facts with units.

    {name, parts, state, is_finished, facts: [{name, value, unit, main}], recipe, environment, fingerprint}

Everything comes from the folder: a run that has reached neither its steps nor its time limit is either still
training or was interrupted.
"""

from pathlib import Path
from typing import Any

from lavibridge.report.run_record import RunRecord

PART_LABELS = {"language_lora": "language LoRA", "connector": "connector", "vision_lora": "vision LoRA"}

_ENVIRONMENT = ("device", "device_name", "threads", "torch", "lavibridge")
"""Environment fields that the page always shows; it folds the rest."""


def describe_run(run: RunRecord) -> dict[str, Any]:
    """Summarise a run for report.json."""
    state, is_finished = _state(run)
    return {
        "name": run.name,
        "parts": {part: _part_name(run.recipe.get(part)) for part in ("language", "connector", "vision")},
        "state": state,
        "is_finished": is_finished,
        "facts": [
            {"name": name, "value": value, "unit": unit, "main": main}
            for facts, main in ((_main_facts(run), True), (_more_facts(run), False))
            for name, value, unit in facts
            if value is not None
        ],
        "recipe": run.recipe,
        "environment": run.environment,
        "fingerprint": run.fingerprint,
    }


def _part_name(part: Any) -> str:
    """A short name for a part of a recipe: its source, or else its kind."""
    if isinstance(part, dict):
        source = part.get("source")
        return Path(str(source)).name if source else str(part.get("kind", "unnamed"))
    return str(part or "unnamed")


def _state(run: RunRecord) -> tuple[str, bool]:
    """The state of a run in words, and whether it is finished."""
    training = run.recipe.get("training") or {}
    planned, minutes = training.get("steps"), training.get("max_minutes")
    if planned == 0 and run.alignment and run.fingerprint:
        return "finished: aligned from captions alone", True
    if not run.rows:
        begun = "in alignment" if run.alignment else "not started"
        return f"{begun}: no logged step", False
    last = run.rows[-1]
    if isinstance(planned, int) and last["step"] >= planned:
        return "finished", True
    if isinstance(minutes, int | float) and (last.get("seconds") or 0) >= 60 * minutes:
        return "finished: reached its time limit", True
    return "unfinished: still training, or interrupted", False


def _main_facts(run: RunRecord) -> list[tuple[str, Any, str]]:
    """The facts to show first: name, value, unit."""
    training, data = run.recipe.get("training") or {}, run.recipe.get("data") or {}
    last = run.rows[-1] if run.rows else {}
    taken, each_step = last.get("step", 0), _pictures_a_step(run)
    found = [
        ("state", _state(run)[0], "text"),
        ("steps taken", taken, "count"),
        ("steps planned", training.get("steps"), "count"),
        ("time limit, minutes", training.get("max_minutes"), "number"),
        ("time", last.get("seconds"), "seconds"),
        ("data", " ".join(str(data[key]) for key in ("kind", "path") if data.get(key)) or None, "text"),
        ("scenes drawn", data.get("scenes") if data.get("kind") == "world" else None, "count"),
        ("images per step", each_step, "count"),
        (
            "training images, with repeats",
            taken * each_step if each_step else None,
            "count",
        ),
        ("unreadable pictures", run.rejected or None, "count"),
    ]
    found += [
        (f"weights trained, {PART_LABELS[part]}", run.environment.get(f"trained_{part}"), "count")
        for part in PART_LABELS
    ]
    if run.validations:
        measured = run.validations[-1]["validation"]
        found.append(("held-out pictures", measured.get("pictures"), "count"))
        found.append(("last held-out loss", measured.get("loss"), "number"))
        found.append(("its standard error", measured.get("standard_error"), "number"))
    return found


def _more_facts(run: RunRecord) -> list[tuple[str, Any, str]]:
    """Further facts: name, value, unit."""
    rates = (run.recipe.get("training") or {}).get("lr") or {}
    trained = [part for part in PART_LABELS if run.environment.get(f"trained_{part}")]
    return [
        *((f"learning rate, {PART_LABELS[part]}", rates.get(part), "number") for part in trained),
        *((f"saved, {PART_LABELS[part]}", run.part_sizes.get(part), "bytes") for part in PART_LABELS),
        ("peak memory", run.rows[-1].get("peak_memory_mib") if run.rows else None, "MiB"),
        *((key.replace("_", " "), run.environment.get(key), "text") for key in _ENVIRONMENT),
    ]


def _pictures_a_step(run: RunRecord) -> int | None:
    """Batch x accumulate x processes; the number of processes is known from the first checkpoint on."""
    training = run.recipe.get("training") or {}
    batch = training.get("batch")
    if not isinstance(batch, int):
        return None
    return batch * int(training.get("accumulate") or 1) * int(run.fingerprint.get("processes") or 1)
