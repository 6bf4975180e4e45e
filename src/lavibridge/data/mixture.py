"""Several data sets as one, each sampled in proportion to its weight.

    data:
      kind: mixture
      parts:
        - {kind: tsv, path: coco.tsv, weight: 0.6}
        - {kind: webdataset, path: others/, weight: 0.4}

A weight is a share of the visits, independent of the number of pictures: pictures of a small part repeat more
often. ``repeats`` instead says how often an epoch visits each picture of a part, as in other trainers.
Without either, every picture counts alike. The published LaVi-Bridge was trained on 600k pictures of
COCO and 400k others (Zhao et al. 2024, arXiv 2403.07860).
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import Field, field_validator

from lavibridge.core import registry
from lavibridge.core.config import validate_config
from lavibridge.core.errors import RecipeError
from lavibridge.data.base import Dataset, DatasetPart, Sample, open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures

_MIXTURE_FIELDS = ("size", "buckets", "flip")
"""Fields that belong to the mixture and not to a part."""
_PART_FIELDS = ("kind", "weight", "repeats", *_MIXTURE_FIELDS)
"""Fields that the kind of a part does not read."""


class Mixture(Dataset):
    """Parts of other kinds, concatenated in the numbering of pictures."""

    class Config(Dataset.Config):
        """Settings of `data.kind: mixture`."""

        parts: tuple[dict[str, Any], ...] = Field(min_length=1)
        """Data sets: each a `data` section with its kind, and for all parts or for none a `weight` above 0 or
        `repeats`, a whole number of visits of each picture."""

        @field_validator("parts", mode="before")
        @classmethod
        def _are_sections(cls, parts: Any) -> Any:
            """Check each part by its kind, and write out its defaults."""
            if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts):
                raise ValueError("must be a list of sections, each with its kind")
            found = [_complete_part(part, f"data.parts.{number}") for number, part in enumerate(parts)]
            if len({part["weight"] is None for part in found}) > 1:
                raise ValueError("give every part a weight, or none")
            repeated = [part for part in found if "repeats" in part]
            if repeated and (len(repeated) < len(found) or found[0]["weight"] is not None):
                raise ValueError("give every part repeats, or none, and no weights beside them")
            return found

    config: "Mixture.Config"

    def __init__(self, config: "Mixture.Config", rejected: RejectedPictures) -> None:
        super().__init__(config, rejected)
        self.datasets: list[Dataset] = []
        for number, part in enumerate(config.parts):
            own = RejectedPictures()
            self.datasets.append(open_dataset(part["kind"], _part_config(part, f"data.parts.{number}"), own))
            rejected.take(
                [*rejected.all, *({**entry, "file": f"{number}:{entry['file']}"} for entry in own.all)]
            )
        rejected.close(
            len(self) + len(rejected.entries), 1.0, "the mixture"
        )  # each part has checked its own limit

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def parts(self) -> tuple[DatasetPart, ...]:
        if self.config.parts[0]["weight"] is None and "repeats" not in self.config.parts[0]:
            return super().parts()
        return tuple(
            DatasetPart(count=len(dataset), weight=_weight(part, len(dataset)))
            for dataset, part in zip(self.datasets, self.config.parts, strict=True)
        )

    def sample(self, index: int) -> Sample:
        number, inside = self._locate(index)
        sample = self.datasets[number].sample(inside)
        return Sample(name=f"{number}:{sample.name}", captions=sample.captions)

    def visit_caption(self, index: int, caption: str, seed: int) -> str:
        number, inside = self._locate(index)
        return self.datasets[number].visit_caption(inside, caption, seed)

    def picture(self, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
        number, inside = self._locate(index)
        return self.datasets[number].picture(inside, size)

    def content(self, index: int) -> bytes:
        number, inside = self._locate(index)
        return self.datasets[number].content(inside)

    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        return np.concatenate([dataset.sizes() for dataset in self.datasets])

    def fingerprint(self) -> str:
        """Combine the parts' fingerprints; the weights belong to the recipe."""
        text = "\n".join(dataset.fingerprint() for dataset in self.datasets)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return f"{len(self)} pictures of {len(self.datasets)} parts, {digest}"

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the number of the part and the index within it."""
        ends = list(accumulate(map(len, self.datasets)))
        number = bisect_right(ends, index)
        return number, index - (ends[number] - len(self.datasets[number]))


def _weight(part: Mapping[str, Any], count: int) -> float:
    """Return a part's share of the visits, relative to those of the others."""
    return float(part["weight"]) if "repeats" not in part else float(part["repeats"] * count)


def _part_config(part: Mapping[str, Any], where: str) -> Dataset.Config:
    """Return the settings of a part. Raises RecipeError if its kind is missing or a field belongs to the
    mixture."""
    kind = part.get("kind")
    if not isinstance(kind, str):
        raise RecipeError(f"{where}.kind is missing (kinds: {', '.join(registry.kinds('data'))})")
    for name in _MIXTURE_FIELDS:
        if part.get(name):
            raise RecipeError(f"{where}.{name}: set it for the whole mixture, as data.{name}")
    fields = {name: value for name, value in part.items() if name not in _PART_FIELDS}
    model: type[Dataset.Config] = registry.load_kind("data", kind).Config
    return validate_config(model, fields, where)


def _complete_part(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a part with all its fields written out, as a recipe file stores it."""
    weight = part.get("weight")
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0
    ):
        raise RecipeError(f"{where}.weight: must be a number above 0, found {weight!r}")
    fields = _part_config(part, where).model_dump(mode="json", exclude=set(_MIXTURE_FIELDS))
    if not registry.load_kind("data", str(part["kind"])).has_pictures:
        raise RecipeError(f"{where}: a mixture needs pictures, but data of kind '{part['kind']}' has none")
    repeats = part.get("repeats")
    if repeats is not None and (isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1):
        raise RecipeError(f"{where}.repeats: must be a whole number from 1, found {repeats!r}")
    chosen = {} if repeats is None else {"repeats": repeats}
    return {"kind": part["kind"], "weight": weight, **chosen, **fields}


def flatten_parts(parts: Sequence[Mapping[str, Any]]) -> list[tuple[str, Dataset.Config]]:
    """Return kind and settings of every part, including those of nested mixtures."""
    found: list[tuple[str, Dataset.Config]] = []
    for number, part in enumerate(parts):
        config = _part_config(part, f"data.parts.{number}")
        found += (
            flatten_parts(config.parts) if isinstance(config, Mixture.Config) else [(part["kind"], config)]
        )
    return found
