"""Evaluates images of other tools: a folder with one image per prompt of a suite.

    FOLDER/0.png 1.png ... 10.png      in the order of the suite's prompts; numbers sort by value

It is an error if the counts differ: otherwise images would silently be scored against the wrong prompts.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.core.identity import cached_file_hash, card_hash
from lavibridge.data.pictures.decoding import decode_picture_file
from lavibridge.data.pictures.walk import pictures_below
from lavibridge.evaluation.base import Task


class PrecomputedImages:
    """An ImageGenerator that returns the existing image for each prompt."""

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        """Raises DataError if the number of images differs from the number of tasks."""
        if not folder.is_dir():
            raise DataError(f"there is no folder '{folder}': give a folder of images")
        files = sorted(pictures_below(folder), key=_natural)
        if len(files) != len(tasks):
            raise DataError(
                f"{folder} has {len(files)} images but the suite needs {len(tasks)}: give one per prompt, "
                "in the suite's order, or choose fewer prompts with --category and --limit"
            )
        self.distilled_guidance_scale: float | None = None
        hashes = [cached_file_hash(path) for path in files]
        self.origin = {"pictures": folder.as_posix(), "sha256": card_hash(hashes)}
        self.files = {(task.prompt, task.seed): path for task, path in zip(tasks, files, strict=True)}

    def generate(
        self,
        prompts: Sequence[str],
        seed: Sequence[int],
        num_inference_steps: int | None,
        guidance_scale: float | None,
        quality: str,
    ) -> list[Image.Image]:
        """Return the images of these prompts. Raises DataError if a file is unreadable."""
        found = []
        for key in zip(prompts, seed, strict=True):
            try:
                found.append(decode_picture_file(self.files[key]))
            except DataError as error:
                raise DataError(
                    f"{self.files[key]}: {error}; repair it, because the suite needs every image"
                ) from None
        return found


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
