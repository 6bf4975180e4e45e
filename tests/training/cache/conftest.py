"""Bridges of the real classes at toy size, composed once, and pictures in a folder."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.data.base import Dataset
from lavibridge.data.folder import Folder
from lavibridge.data.pictures.rejected import RejectedPictures

Composed = Callable[..., Bridge]


@cache
def _compose(language: str, connector: str, see_padding: bool | str, template: str | None) -> Bridge:
    options = {"see_padding": see_padding, "template": template, "max_tokens": 24}
    if language == "pair":
        options |= {"of": "llama", "passthrough": {"kind": "clip", "source": "random", "max_tokens": 12}}
    small = {"llmdiff": {}, "ella": {"latents": 3, "blocks": 1, "heads": 4, "time_channels": 8}}
    bridge = Bridge.compose(
        {"kind": language, "source": "random", **options},
        {"kind": "sd", "source": "random"},
        {"kind": connector, **small.get(connector, {})},
        language_lora=None,
        vision_lora={"rank": 2},
    )
    return bridge.eval()


@pytest.fixture
def composed() -> Composed:
    """A bridge whose language model has no LoRA; equal ones are made once."""

    def make(
        language: str = "llama",
        connector: str = "lavi",
        see_padding: bool | str = False,
        template: str | None = None,
    ) -> Bridge:
        return _compose(language, connector, see_padding, template)

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of four pictures with captions; the last is the first once more, under another name."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    texts = ("a red cat\na cat", "a boat to the left of a house", "", "a red cat")
    for number, text in enumerate(texts):
        grey = np.full((20, 24, 3), 60 * (number % 3), dtype=np.uint8)
        grey[:, :12] += 40
        Image.fromarray(grey).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(text or "grey")
    return folder


@pytest.fixture
def opened() -> Callable[..., Dataset]:
    """Open a folder of pictures."""

    def make(path: Path, **options: object) -> Dataset:
        config = Folder.Config.model_validate({"path": path, **options})
        return Folder(config, RejectedPictures())

    return make
