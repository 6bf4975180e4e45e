"""COCO captions from its annotation files, one per picture for a fixed sample of pictures.

Takes pictures in the order of the crc32 of their ids, so that a smaller sample is a prefix of a larger one,
and for each picture the caption with the lowest id. Lin et al. 2014 (arXiv 1405.0312).
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from pydantic import Field

from lavibridge.core.errors import DataError, LaviError
from lavibridge.core.files import parse_json
from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file, read_benchmark_text
from lavibridge.evaluation.prompts.base import PromptSource


class CocoPrompts(PromptSource):
    """One caption per picture; the prompt's name is the picture's id."""

    class Config(PromptSource.Config):
        """The options of COCO's captions."""

        path: str | None = None
        """The annotation file, such as captions_val2014.json."""
        count: int = Field(default=5000, ge=1)
        """Number of captions."""

    config: "CocoPrompts.Config"

    def __init__(self, config: "CocoPrompts.Config") -> None:
        """Read the file. Raises DataError if it is missing, in another format or too small."""
        super().__init__(config)
        self.path = find_benchmark_file(
            config.path,
            "captions_val2014.json of COCO",
            "https://cocodataset.org/#download (2014 Train/Val annotations)",
        )
        first: dict[int, tuple[int, str]] = {}
        try:
            for each in parse_json(read_benchmark_text(self.path), str(self.path))["annotations"]:
                caption = (int(each["id"]), " ".join(str(each["caption"]).split()))
                first[each["image_id"]] = min(caption, first.get(each["image_id"], caption))
        except (LaviError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path} is not a caption file of COCO: {error!r}") from None
        order = sorted(first, key=lambda image: (crc32(str(image).encode()), image))
        if len(order) < config.count:
            raise DataError(
                f"{self.path} has captions of {len(order)} pictures, fewer than `count: "
                f"{config.count}`: lower `count`"
            )
        self._found = [
            Prompt(category="coco", text=first[image][1], name=str(image)) for image in order[: config.count]
        ]

    @property
    def categories(self) -> tuple[str, ...]:
        """The only category."""
        return ("coco",)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The captions in order."""
        return self._found[:limit]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": cached_file_hash(self.path)}
