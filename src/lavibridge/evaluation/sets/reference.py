"""Opens reference sets: a folder of images, a file of statistics, or the world itself.

    FOLDER                  every image below it that is not hidden; features are cached by the images'
                            bytes, the extractor's card and the library versions
    FILE.npz, .safetensors  `features` (image x width), or `mu` and `sigma` as in other tools
    world                   new scenes of the generated images' categories, in the same proportions

The card of every number records the reference's hash and number of images.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from safetensors.numpy import save

from lavibridge.core.errors import DataError, ModelError
from lavibridge.core.files import write_atomic
from lavibridge.core.identity import cached_file_hash, library_versions
from lavibridge.core.log import progress_bar
from lavibridge.core.paths import cache_folder, expand_path
from lavibridge.core.safetensors_file import load_tensors
from lavibridge.data.pictures.decoding import DECODING_VERSION as PIXELS
from lavibridge.data.pictures.decoding import decode_picture_file
from lavibridge.data.pictures.walk import pictures_below
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.sets.features import (
    FeatureExtractor,
    FeatureMoments,
    ReferenceFeatures,
    extract_features,
)
from lavibridge.world.captions import CATEGORIES, sample_captioned_scene
from lavibridge.world.drawing import draw_scene

_WORLD = "world"
_SCENES = 2000
"""Minimum number of reference scenes; fewer would bias distances."""
_LIBRARIES = ("torch", "transformers", "pillow", "numpy")
"""Libraries whose versions may change features."""


def check_reference(source: str, tasks: Sequence[Task]) -> None:
    """Raise DataError before generation if the reference does not exist."""
    if source == _WORLD:
        odd = next((task.category for task in tasks if task.category not in CATEGORIES), None)
        if odd is not None:
            raise DataError(f"reference: world has no scenes of '{odd}'; give a folder of real images")
        return
    path = expand_path(source)
    if path.suffix in (".npz", ".safetensors") and path.is_file():
        return
    if not path.is_dir():
        raise DataError(
            f"reference: there is no '{source}'; give a folder of images, a .npz or .safetensors file of "
            "features or of mu and sigma, or `world`"
        )
    if not pictures_below(path):
        raise DataError(f"reference: '{source}' holds no JPEG, PNG or WebP images")


def open_reference(source: str, extractor: FeatureExtractor, tasks: Sequence[Task]) -> ReferenceFeatures:
    """Open the reference set for these tasks, with the extractor's features."""
    if source == _WORLD:
        count = max(_SCENES, len(tasks))
        features = extract_features(extractor, _scenes(tasks, count), count, "scenes")
        return ReferenceFeatures(features=features, card={"reference": _WORLD, "n": count})
    path = expand_path(source)
    return _of_folder(path, extractor) if path.is_dir() else _of_file(path)


def _scenes(tasks: Sequence[Task], count: int) -> Iterator[Image.Image]:
    for index in range(count):
        category = tasks[index % len(tasks)].category
        pair = sample_captioned_scene(0, index, category=category, split="reference")
        yield Image.fromarray(draw_scene(pair.scene))


def _of_folder(folder: Path, extractor: FeatureExtractor) -> ReferenceFeatures:
    """Compute the features of a folder's images, cached until the images or the extractor change."""
    files = pictures_below(folder)
    digest = reference_hash(folder)
    maker = json.dumps([extractor.card(), library_versions(*_LIBRARIES)], sort_keys=True)
    name = hashlib.sha256(f"{digest}\n{maker}".encode()).hexdigest()[:32]
    kept = cache_folder() / "features" / f"{name}.safetensors"
    card = {"reference": digest, "n": len(files)}
    with suppress(OSError, ModelError, KeyError):  # missing or damaged: extract again
        return ReferenceFeatures(features=load_tensors(kept)["features"].numpy(), card=card)
    features = extract_features(extractor, (_read(path) for path in files), len(files), folder.name)
    with suppress(OSError):  # a read-only cache folder only costs time
        write_atomic(kept, save({"features": features}))
    return ReferenceFeatures(features=features, card=card)


def reference_hash(source: str | Path) -> str:
    """Identify a reference by content: a folder's pictures or a file's bytes."""
    if source == _WORLD:
        return _WORLD
    folder = expand_path(source)
    if not folder.is_dir():
        return cached_file_hash(folder)
    files = pictures_below(folder)
    digest = hashlib.sha256(f"pixels {PIXELS}\n".encode())
    with progress_bar("files") as bar:
        shown = bar.add_task(f"hashing {folder.name}", total=len(files), status="", visible=len(files) > 500)
        for path in files:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{cached_file_hash(path)}\n".encode())
            bar.advance(shown)
    return digest.hexdigest()


def _read(path: Path) -> Image.Image:
    try:
        return decode_picture_file(path)
    except DataError as error:
        raise DataError(f"reference: {path}: {error}; repair or remove it") from None


def _of_file(path: Path) -> ReferenceFeatures:
    """Read features or moments, never a pickle."""
    try:
        found: dict[str, Any] = (
            dict(np.load(path, allow_pickle=False))
            if path.suffix == ".npz"
            else {name: value.double().numpy() for name, value in load_tensors(path).items()}
        )
    except (ValueError, OSError, BadZipFile, ModelError) as error:
        raise DataError(f"reference: {path} cannot be read: {error}") from None
    card = {"reference": reference_hash(path)}
    if "features" in found:
        features = np.asarray(found["features"], dtype=np.float64)
        if features.ndim == 2 and len(features) > 1:
            return ReferenceFeatures(features=features, card={**card, "n": len(features)})
    mean, covariance = (np.asarray(found.get(key, ()), dtype=np.float64) for key in ("mu", "sigma"))
    if mean.ndim == 1 and mean.size and covariance.shape == (mean.size, mean.size):
        return ReferenceFeatures(moments=FeatureMoments(mean=mean, covariance=covariance), card=card)
    raise DataError(
        f"reference: {path} holds {', '.join(sorted(found)) or 'nothing'}: it needs `features` "
        "(picture x width), or `mu` (width) and `sigma` (width x width)"
    )
