"""Captions of COCO, as its annotation files hold them: one for each of some of its pictures.

Pictures are taken in the order of crc32 of their ids, so that fewer are the first of more, and of each the
caption with the lowest id. Lin et al. 2014 (arXiv 1405.0312).
"""

import json
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from pydantic import Field

from lavibridge.core.errors import DataError
from lavibridge.core.identity import file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.files import find_file, read_text
from lavibridge.evaluation.prompts.base import PromptSource


class CocoPrompts(PromptSource):
    """A caption a picture; the prompt's name is the picture's id."""

    class Config(PromptSource.Config):
        """The options of COCO's captions."""

        path: str | None = None
        """The annotation file, such as captions_val2014.json."""
        count: int = Field(default=5000, ge=1)
        """How many captions."""

    config: "CocoPrompts.Config"

    def __init__(self, config: "CocoPrompts.Config") -> None:
        """Read the file; DataError where it is absent, of another form or too small."""
        super().__init__(config)
        self.path = find_file(
            config.path,
            "captions_val2014.json of COCO",
            "https://cocodataset.org/#download (2014 Train/Val annotations)",
        )
        first: dict[int, tuple[int, str]] = {}
        try:
            for each in json.loads(read_text(self.path))["annotations"]:
                said = (int(each["id"]), " ".join(str(each["caption"]).split()))
                first[each["image_id"]] = min(said, first.get(each["image_id"], said))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path} is no caption file of COCO: {error!r}") from None
        order = sorted(first, key=lambda image: (crc32(str(image).encode()), image))
        if len(order) < config.count:
            raise DataError(f"{self.path} has captions of {len(order)} pictures, not {config.count}")
        self._found = [
            Prompt(category="coco", text=first[image][1], name=str(image)) for image in order[: config.count]
        ]

    @property
    def categories(self) -> tuple[str, ...]:
        """The one."""
        return ("coco",)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The captions in their order."""
        return self._found[:limit]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": file_hash(self.path)}
