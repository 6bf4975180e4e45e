"""Generates the images of a suite that are missing or damaged."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.core.errors import DataError, RunError
from lavibridge.core.files import file_sha256
from lavibridge.core.log import JsonLog, console, progress_bar
from lavibridge.data.pictures.decoding import decode_picture_file
from lavibridge.evaluation.base import ImageGenerator, Task
from lavibridge.evaluation.records import Record, RecordKey, image_record
from lavibridge.generation.image_files import save_png
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.generation.prompt_encoding import revised_metadata
from lavibridge.generation.quality import EXACT_QUALITY

_CHUNK = 32
"""Images generated between two writes."""
_END = b"IEND\xaeB`\x82"
"""The end of every complete PNG."""
_REMEDY = "delete it, and the next call generates it again"
_SAME_PICTURE = 1.0
"""Maximum mean difference, of 255, at which two images of a generator count as the same."""


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """The images that a process has to generate."""

    missing: tuple[Task, ...]
    damaged: tuple[Task, ...]
    """Recorded images whose files are missing or incomplete."""
    drawings: Mapping[RecordKey, int]
    """How often each of the damaged images was generated again before."""
    whole: Task | None
    """A task whose image is complete, if there is one."""


def plan_generation(out: Path, tasks: Sequence[Task], records: Mapping[RecordKey, Record]) -> GenerationPlan:
    """Find the tasks whose images are missing or incomplete."""
    recorded = [task for task in tasks if task.key in records]
    undrawn = {task.key for task in recorded if records[task.key].undrawn}
    damaged = [
        task for task in recorded if task.key not in undrawn and not _is_whole(out / records[task.key].file)
    ]
    lost = {task.key for task in damaged} | undrawn
    return GenerationPlan(
        missing=tuple(task for task in tasks if task.key not in records),
        damaged=tuple(damaged),
        drawings={task.key: records[task.key].drawing for task in damaged},
        whole=next((task for task in recorded if task.key not in lost), None),
    )


def generate_missing_images(
    bridge: Bridge | ImageGenerator,
    plan: GenerationPlan,
    settings: Mapping[str, Any],
    out: Path,
    log: JsonLog,
    drawn_with: str,
) -> None:
    """Generate, save and record images. Raises RunError if their number differs from the prompts'."""
    if plan.damaged:
        names = ", ".join(task.file for task in plan.damaged[:3])
        console.print(
            f"generating {len(plan.damaged)} missing or damaged images again, such as {names}",
            soft_wrap=True,
        )
    todo = [*plan.damaged, *plan.missing]
    if not todo:
        return
    with progress_bar("pictures") as bar:
        shown = bar.add_task("generating", total=len(todo), status="")
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            pictures, reasons = _drawn(bridge, chunk, settings)
            revised: list[dict[str, str]] = [{}] * len(chunk)
            if isinstance(bridge, Bridge):
                revised = revised_metadata(bridge, [task.prompt for task in chunk])
            for place, (task, picture, text) in enumerate(zip(chunk, pictures, revised, strict=True)):
                made = ""
                if picture is not None:
                    metadata = {"prompt": task.prompt, "seed": str(task.seed)} | text
                    save_png(out / task.file, picture, metadata)
                    made = file_sha256(out / task.file)
                drawing, reason = plan.drawings.get(task.key, -1) + 1, reasons.get(place, "")
                log.write(image_record(task, drawing, drawn_with, made, reason))
            bar.update(shown, advance=len(chunk), status=chunk[-1].category)


def read_generated_image(out: Path, record: Record) -> Image.Image:
    """Return the image of a record. Raises DataError if its file is damaged or has changed."""
    path = out / record.file
    try:
        picture = decode_picture_file(path)
    except DataError as error:
        raise DataError(f"{path}: {error}; {_REMEDY}") from None
    check_generated_image(out, record)
    return picture


def check_generated_image(out: Path, record: Record) -> None:
    """Raise DataError if an existing file is not the image that was generated and scored."""
    if file_sha256(out / record.file) != record.sha256:
        raise DataError(f"{out / record.file}: it has changed since it was generated; {_REMEDY}")


def check_same_image(
    bridge: Bridge | ImageGenerator,
    task: Task,
    record: Record,
    settings: Mapping[str, Any],
    out: Path,
    advice: str,
) -> None:
    """Generate one image again to verify a generator that only has a name. Raises RunError if it differs."""
    before = np.asarray(read_generated_image(out, record), dtype=np.float32)
    now = np.asarray(_draw(bridge, [task], settings)[0].convert("RGB"), dtype=np.float32)
    if before.shape != now.shape or float(np.abs(before - now).mean()) > _SAME_PICTURE:
        raise RunError(
            f"{out} holds images of another bridge, or of this one before further training: {advice}"
        )


def _drawn(
    bridge: Bridge | ImageGenerator, tasks: Sequence[Task], settings: Mapping[str, Any]
) -> tuple[Sequence[Image.Image | None], Mapping[int, str]]:
    """Generate the tasks' images; also return the reason for each failed one, by its index."""
    try:
        return _draw(bridge, tasks, settings), {}
    except NonfiniteImageError as error:
        console.print(f"note: {error}", soft_wrap=True)
        return error.pictures, error.reasons


def _draw(
    bridge: Bridge | ImageGenerator, tasks: Sequence[Task], settings: Mapping[str, Any]
) -> list[Image.Image]:
    prompts, seeds = [task.prompt for task in tasks], [task.seed for task in tasks]
    steps, guidance, quality = settings["steps"], settings["guidance"], settings.get("quality", EXACT_QUALITY)
    if isinstance(bridge, Bridge):
        pipe = BridgePipeline(bridge)
        pictures: list[Image.Image] = pipe(
            prompts, num_inference_steps=steps, guidance_scale=guidance, seed=seeds, quality=quality
        ).images
    else:
        pictures = bridge.generate(prompts, seeds, steps, guidance, quality)
    if len(pictures) != len(tasks):
        raise RunError(
            f"the generator returned {len(pictures)} images for {len(tasks)} prompts: return one per prompt"
        )
    return pictures


def _is_whole(path: Path) -> bool:
    """Whether a PNG is complete up to its last chunk; decoding thousands would take minutes."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False
