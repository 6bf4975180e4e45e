"""Small pictures, and data opened from settings as a recipe writes them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavibridge.core.config import validate_config
from lavibridge.core.registry import load_kind
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures


def _encoded(shade: int = 90, size: tuple[int, int] = (20, 30), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 10, 10)).save(buffer, kind)
    return buffer.getvalue()


def _put(path: Path, shade: int = 90, size: tuple[int, int] = (20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(shade, size))
    return path


def _opened(kind: str, rejected: RejectedPictures | None = None, **settings: Any) -> Dataset:
    config = validate_config(load_kind("data", kind).Config, settings, "data")
    return open_dataset(kind, config, rejected or RejectedPictures())


def _pairs(dataset: Dataset) -> list[tuple[str, tuple[str, ...]]]:
    samples = [dataset.sample(index) for index in range(len(dataset))]
    return [(sample.name, sample.captions) for sample in samples]


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """The bytes of a picture of one colour; `size` is (width, height)."""
    return _encoded


@pytest.fixture(scope="session")
def put() -> Callable[..., Path]:
    """Writes a picture file of one colour."""
    return _put


@pytest.fixture(scope="session")
def opened() -> Callable[..., Dataset]:
    """Opens data of a kind."""
    return _opened


@pytest.fixture(scope="session")
def pairs() -> Callable[[Dataset], list[tuple[str, tuple[str, ...]]]]:
    """Every name with its captions."""
    return _pairs
