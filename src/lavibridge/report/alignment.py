"""Writes a report of an alignment for others: without names and paths, and with only the machine's device.

RUN/alignment-report/
    summary.json   versions, device, the two models as far as they are public, settings, times, peak memory
    curve.jsonl    fvu, held-out fvu and cosines by step
    panel.png      images of the panel's prompts, by the vision model's own pipeline and by the bridge

The panel tests features that users may miss: tags, negative prompts, low and high guidance, long prompts,
prompts in another language, and a stacked LoRA file. Every pair of images has the same seed and settings.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from lavibridge.core.errors import LaviError
from lavibridge.core.files import (
    parse_json,
    read_json_object,
    shipped_models,
    split_json_lines,
    write_atomic,
    write_json,
)
from lavibridge.core.log import console
from lavibridge.core.sources import is_hub_id
from lavibridge.generation.contact_sheet import contact_sheet
from lavibridge.generation.image_files import save_png
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.interop.lora_read import read_lora_file
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
    has_lora: bool = False
    """Whether the report's LoRA file is folded into the denoiser, where it stays: this row comes last."""


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
    AlignmentPanelPrompt(
        label="stacked LoRA", prompt="a red fox sits on a mossy rock beside a stream", has_lora=True
    ),
)


def write_alignment_report(run: Path, panel_lora: Path | None = None) -> Path:
    """Generate the panel and write the report of an aligned run; returns its folder.

    ``panel_lora`` is a LoRA file of the vision model, which the last row folds into it. A panel that does not
    fit into memory is left out. Raises RunError if the run has no bridge yet.
    """
    folder, records = run / FOLDER, _curve(run)
    summary = _summary(run, records)  # before the panel, whose memory is not the alignment's
    try:
        drawn = _draw_panel(run, panel_lora)
        sheet = contact_sheet(
            [[one.image for one in row] for row in drawn],
            [f"{each.label}: {each.prompt}" for each in PANEL],
            ["own text encoder", "bridge"],
            cell=256,
        )
        save_png(folder / "panel.png", sheet, {"description": f"seed {SEED}"})
    except torch.OutOfMemoryError:
        console.print("note: the panel is not drawn, as both pipelines do not fit into memory")
        drawn = [[_not_drawn("out of memory")] * 2] * len(PANEL)
    summary["panel"] = [
        {
            "label": each.label,
            "seconds": [round(one.seconds, 2) for one in row],
            "not_drawn": [one.reason for one in row],
        }
        for each, row in zip(PANEL, drawn, strict=True)
    ]
    write_atomic(folder / "curve.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    write_json(folder / "summary.json", summary)
    return folder


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """One image of the panel; white, with the reason, if there is none."""

    image: Image.Image
    seconds: float
    reason: str | None


def _draw_panel(run: Path, panel_lora: Path | None) -> list[list[_Drawn]]:
    """Draw every row by the image model's own pipeline and through the bridge, which share the denoiser."""
    bridge = BridgePipeline.from_pretrained(run)
    native = BridgePipeline.native(bridge.bridge.vision)
    rows = []
    for each in PANEL:
        missing = _stack_lora(native, panel_lora) if each.has_lora else None
        if missing is not None:
            rows.append([_not_drawn(missing)] * 2)
        else:
            rows.append([_draw(pipe, each) for pipe in (native, bridge)])
    return rows


def _stack_lora(native: BridgePipeline, file: Path | None) -> str | None:
    """Fold a LoRA file into the shared denoiser and the own text encoders; returns why it is not there."""
    if file is None:
        return "no LoRA file was given (--panel-lora)"
    try:
        read_lora_file(native.bridge, file)
    except LaviError as error:
        console.print(f"note: the panel has no LoRA: {error}", soft_wrap=True)
        return "the LoRA file cannot be read into this image model"
    return None


def _not_drawn(reason: str) -> _Drawn:
    return _Drawn(image=Image.new("RGB", (64, 64), "white"), seconds=0.0, reason=reason)


def _draw(pipe: BridgePipeline, each: AlignmentPanelPrompt) -> _Drawn:
    begun = perf_counter()
    try:
        image: Image.Image = pipe(
            each.prompt, each.negative_prompt, guidance_scale=each.guidance_scale, seed=SEED
        ).images[0]
    except NonfiniteImageError as error:
        reason = error.reasons[0]
        console.print(f"note: the panel lacks '{each.label}': {reason}", soft_wrap=True)
        return _not_drawn(reason)
    return _Drawn(image=image, seconds=perf_counter() - begun, reason=None)


def _curve(run: Path) -> list[dict[str, Any]]:
    path = run / "align.jsonl"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [parse_json(line, str(path)) for line in split_json_lines(text)]


def _summary(run: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    environment = read_json_object(run / "environment.json")
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
