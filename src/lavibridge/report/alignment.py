"""Writes a report of an alignment for others: without names and paths, and with only the machine's device.

RUN/alignment-report/
    summary.json   versions, device, the two models as far as they are public, settings, times, peak memory
    curve.jsonl    fvu, held-out fvu and cosines by step
    panel.png      images of the panel's prompts, by the vision model's own pipeline and by the bridge

The panel tests features that users may miss: tags, negative prompts, low and high guidance, long prompts,
prompts in another language. Every pair of images has the same seed and the same settings.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from PIL import Image

from lavibridge.core.files import read_json, shipped_models, split_json_lines, write_atomic, write_json
from lavibridge.core.log import console
from lavibridge.core.sources import is_hub_id
from lavibridge.generation.contact_sheet import contact_sheet
from lavibridge.generation.image_files import save_png
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.recipes.recipe_text import read_recipe_yaml
from lavibridge.training.reporting.step_metrics import peak_memory_mib

FOLDER = "alignment-report"
SEED = 0
PRIVATE = ("system",)
"""Entries of environment.json that identify the machine."""


@dataclass(frozen=True, kw_only=True)
class AlignmentPanelPrompt:
    """One row of the panel."""

    label: str
    prompt: str
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    """None: the vision model's default."""


PANEL = (
    AlignmentPanelPrompt(
        label="sentence", prompt="a red fox sits on a mossy rock beside a stream, early morning light"
    ),
    AlignmentPanelPrompt(label="two things", prompt="a blue ceramic bowl to the left of a yellow teapot"),
    AlignmentPanelPrompt(label="count", prompt="three green apples on a white plate"),
    AlignmentPanelPrompt(
        label="tags", prompt="portrait, woman, freckles, soft light, 85mm, film grain, shallow depth of field"
    ),
    AlignmentPanelPrompt(
        label="negative prompt", prompt="a street in the rain at night", negative_prompt="people, cars, text"
    ),
    AlignmentPanelPrompt(label="low guidance", prompt="a lighthouse on a cliff", guidance_scale=1.5),
    AlignmentPanelPrompt(label="high guidance", prompt="a lighthouse on a cliff", guidance_scale=12.0),
    AlignmentPanelPrompt(
        label="long",
        prompt="an old bookshop with tall wooden shelves, a ladder leaning against the left one, a black cat "
        "asleep on a pile of atlases in the foreground, a brass lamp on the counter throwing warm light on "
        "an open ledger, dust in the air, a bicycle seen through the window, and snow falling outside",
    ),
    AlignmentPanelPrompt(label="another language", prompt="ein roter Apfel auf einem blauen Tisch"),
    AlignmentPanelPrompt(label="words in the picture", prompt='a wooden sign that reads "OPEN"'),
)


def write_alignment_report(run: Path) -> Path:
    """Generate the panel and write the report of an aligned run; returns its folder.

    Raises RunError if the run has no bridge yet.
    """
    bridge = BridgePipeline.from_pretrained(run)
    native = BridgePipeline.native(bridge.bridge.vision)
    folder = run / FOLDER
    rows, facts = [], []
    for each in PANEL:
        drawn = [_draw(pipe, each) for pipe in (native, bridge)]
        rows.append([one.image for one in drawn])
        facts.append(
            {
                "label": each.label,
                "seconds": [round(one.seconds, 2) for one in drawn],
                "not_drawn": [one.reason for one in drawn],
            }
        )
    sheet = contact_sheet(
        rows, [f"{each.label}: {each.prompt}" for each in PANEL], ["own text encoder", "bridge"], cell=256
    )
    save_png(folder / "panel.png", sheet, {"description": f"seed {SEED}"})
    records = _curve(run)
    write_atomic(folder / "curve.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    write_json(folder / "summary.json", _summary(run, records) | {"panel": facts})
    return folder


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """One image of the panel; white, with the reason, if it is not finite."""

    image: Image.Image
    seconds: float
    reason: str | None


def _draw(pipe: BridgePipeline, each: AlignmentPanelPrompt) -> _Drawn:
    begun, reason = perf_counter(), None
    try:
        image: Image.Image = pipe(
            each.prompt, each.negative_prompt, guidance_scale=each.guidance_scale, seed=SEED
        ).images[0]
    except NonfiniteImageError as error:
        image, reason = Image.new("RGB", (64, 64), "white"), error.reasons[0]
        console.print(f"note: the panel lacks '{each.label}': {reason}", soft_wrap=True)
    return _Drawn(image=image, seconds=perf_counter() - begun, reason=reason)


def _curve(run: Path) -> list[dict[str, Any]]:
    path = run / "align.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in split_json_lines(text)]


def _summary(run: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    environment = read_json(run / "environment.json")
    recipe = read_recipe_yaml(run / "recipe.yaml")
    measured = [record for record in records if "held_out_fvu" in record]
    return {
        "environment": {name: value for name, value in environment.items() if name not in PRIVATE},
        "language": _public(recipe["language"]),
        "vision": _public(recipe["vision"]),
        "connector": recipe["connector"],
        "align": {
            **recipe["training"]["align"],
            "teacher": recipe["training"]["align"]["teacher"] is not None,
        },
        "precision": recipe["training"]["precision"],
        "steps": records[-1]["step"] if records else 0,
        "seconds": records[-1].get("seconds") if records else None,
        "last_measured": measured[-1] if measured else None,
        "peak_memory_mib": round(peak_memory_mib(), 1),
    }


def _public(section: Mapping[str, Any]) -> dict[str, Any]:
    """A model's section; `local folder` replaces a folder's path, which may contain somebody's name."""
    source = str(section["source"])
    is_public = source in shipped_models() or (is_hub_id(source) and not Path(source).exists())
    kept = ("kind", "dtype", "max_tokens", "quantize", "template")
    return {"source": source if is_public else "local folder"} | {
        key: section[key] for key in kept if section.get(key) is not None
    }
