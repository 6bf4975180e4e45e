"""Builds a blind study from evaluated runs: a page for raters and a key for the organiser.

The page reveals nowhere, not even in its source, which run drew a picture: all pictures have one format, no
metadata, and a random order. Only the key identifies them.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavibridge.ab.data_uri import data_uri
from lavibridge.ab.design import AbDesign, PairedComparison, design_ab_study
from lavibridge.ab.evaluated_runs import EvaluatedRun, keys_shared_by_runs, read_evaluated_runs
from lavibridge.ab.key import KEY_FORMAT, QUESTIONS, AbKey, KeyItem, KeyRun
from lavibridge.ab.page import render_ab_page
from lavibridge.core.errors import RunError
from lavibridge.core.files import write_atomic, write_json
from lavibridge.core.log import console, progress_bar
from lavibridge.core.paths import require_file_path

_SIDE = 768
"""Maximum pixels of a picture's longer side in the page."""


def build_ab_study(
    runs: Sequence[Path],
    suite: str,
    page: Path,
    *,
    prompts: int | None = None,
    per_prompt: int = 1,
    repeats: int | None = None,
    side: int = _SIDE,
    send_to: str = "",
    seed: int | None = None,
) -> tuple[Path, Path]:
    """Write the page and its key beside it; returns both paths.

    Without a `seed`, draws an unpredictable one, so that no rater can reconstruct the sides. Raises RunError,
    and writes nothing, if the runs are not comparable, a picture is missing or damaged, or one of the two
    files exists.
    """
    page = require_file_path(page)
    key_path = page.with_suffix(".key.json")
    for path in (page, key_path):
        if path.exists():
            raise RunError(f"{path} exists, and raters may have voted with it: give another --out")
    evaluated, name = read_evaluated_runs(runs, suite)
    draw = secrets.randbits(64) if seed is None else seed
    rng = np.random.default_rng(draw)
    parts = design_ab_study(
        keys_shared_by_runs(evaluated),
        len(evaluated),
        rng,
        prompts=prompts,
        per_prompt=per_prompt,
        repeats=repeats,
    )
    shown = _displayed(parts, evaluated, side, rng)
    study = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:12]
    about = {"study": study, "form": KEY_FORMAT, "questions": QUESTIONS, "sendTo": send_to}
    key = AbKey(
        study=study,
        form=KEY_FORMAT,
        suite=name,
        draw=draw,
        runs=tuple(KeyRun(name=each.name, folder=each.folder.as_posix()) for each in evaluated),
        items=tuple(_item(each, evaluated) for part in parts for each in part),
    )
    text = render_ab_page({**about, **shown})
    write_json(key_path, key.model_dump(mode="json"))
    try:
        write_atomic(page, text)
    except OSError:
        key_path.unlink()
        raise
    again = sum(item.repeat_of is not None for item in key.items)
    console.print(
        f"{len(key.items) - again} comparisons and {again} repeats in a page of {len(text) / 1e6:.2g} MB; "
        "keep the key to yourself",
        soft_wrap=True,
    )
    return page, key_path


def _displayed(
    parts: AbDesign, evaluated: Sequence[EvaluatedRun], side: int, rng: np.random.Generator
) -> dict[str, Any]:
    """The comparisons in the page: prompts, and pictures by index into a shuffled list."""
    every = [each for part in parts for each in part]
    needed = list(dict.fromkeys((run, each.key) for each in every for run in (each.first, each.second)))
    needed = [needed[place] for place in rng.permutation(len(needed))]
    pictures = []
    with progress_bar("pictures") as bar:
        task = bar.add_task("embedding pictures", total=len(needed), status="")
        for run, key in needed:
            pictures.append(data_uri(evaluated[run].picture(key), side))
            bar.advance(task)
    places = {each: place for place, each in enumerate(needed)}
    return {
        "parts": [
            [
                {
                    "item": each.name,
                    "prompt": each.key[1],
                    "first": places[each.first, each.key],
                    "second": places[each.second, each.key],
                }
                for each in part
            ]
            for part in parts
        ],
        "pictures": pictures,
    }


def _item(each: PairedComparison, evaluated: Sequence[EvaluatedRun]) -> KeyItem:
    ours, theirs = evaluated[each.first], evaluated[each.second]
    first, second = (run.records[each.key].scores for run in (ours, theirs))
    alike = [name for name in first if name in second and ours.cards.get(name) == theirs.cards.get(name)]
    category, prompt, seed = each.key
    return KeyItem(
        item=each.name,
        category=category,
        prompt=prompt,
        seed=seed,
        first=each.first,
        second=each.second,
        repeat_of=each.repeat_of,
        scores={metric: (first[metric], second[metric]) for metric in alike},
    )
