"""Pictures that were drawn elsewhere, as something that draws: a folder with one for each prompt of a suite.

    FOLDER/0.png 1.png ... 10.png      in the order of the suite's prompts, numbers by their value

One too many or too few is an error: a picture beside another's prompt would be judged without a word.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.core.identity import card_hash, file_hash
from lavibridge.data.pictures.decoding import read_picture
from lavibridge.data.pictures.walk import pictures_below
from lavibridge.evaluation.base import Task


class PrecomputedImages:
    """Answers each prompt with the picture that was drawn for it."""

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        """DataError where the folder has fewer or more pictures than the suite asks for."""
        if not folder.is_dir():
            raise DataError(f"there is no folder '{folder}' of pictures")
        files = sorted(pictures_below(folder), key=_natural)
        if len(files) != len(tasks):
            raise DataError(
                f"{folder} has {len(files)} pictures and the suite asks for {len(tasks)}: one for each "
                "prompt is needed, in its order; --category and --limit ask for fewer"
            )
        self.distilled_guidance_scale: float | None = None
        shown = [file_hash(path) for path in files]
        self.origin = {"pictures": folder.as_posix(), "sha256": card_hash(shown)}
        self.files = {(task.prompt, task.seed): path for task, path in zip(tasks, files, strict=True)}

    def generate(
        self,
        prompts: Sequence[str],
        seed: Sequence[int],
        steps: int | None,
        guidance: float | None,
        quality: str,
    ) -> list[Image.Image]:
        """The pictures of these prompts; DataError names one that cannot be read."""
        found = []
        for key in zip(prompts, seed, strict=True):
            try:
                found.append(read_picture(self.files[key]))
            except DataError as error:
                raise DataError(f"{self.files[key]}: {error}; mend it, since none is left out") from None
        return found


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
