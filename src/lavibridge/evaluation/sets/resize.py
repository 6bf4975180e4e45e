"""Resize rules for feature extractors, by name, since each changes the numbers.

    clean            bicubic with antialiasing on floats, per channel, unrounded     clean-fid's "clean"
    legacy           bilinear between pixel centres, no antialiasing                 pytorch-fid
    torch-fidelity   bilinear from pixel corners, no antialiasing                    TensorFlow 1, TTUR
    square           bicubic with antialiasing on bytes, the whole picture           dgm-eval (FD-DINOv2)
    centre           the middle square, then as `square`                             CMMD

Parmar, Zhang and Zhu 2022 (arXiv 2104.11222) measure the differences.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

ResizeRule = Literal["clean", "legacy", "torch-fidelity", "square", "centre"]
ResizePixels = UInt8[np.ndarray, "height width 3"]
Resized = Float[np.ndarray, "size size 3"]


def resize(picture: ResizePixels, size: int, rule: ResizeRule) -> Resized:
    """Resize a picture to `size` x `size`, float32 in 0 .. 255."""
    if rule == "clean":
        return _clean(picture, size)
    if rule == "legacy":
        return _bilinear(picture, size, shift=0.5)
    if rule == "torch-fidelity":
        return _bilinear(picture, size, shift=0.0)
    return _bytes(_middle(picture) if rule == "centre" else picture, size)


def _clean(picture: ResizePixels, size: int) -> Resized:
    channels = [
        Image.fromarray(picture[:, :, c].astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1).clip(0, 255)


def _bytes(picture: ResizePixels, size: int) -> Resized:
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)


def _middle(picture: ResizePixels) -> UInt8[np.ndarray, "side side 3"]:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def _bilinear(picture: ResizePixels, size: int, shift: float) -> Resized:
    """Output pixel i reads at (i + shift) * scale - shift; repeats the border."""
    values = picture.astype(np.float32)
    for axis in (0, 1):
        length = values.shape[axis]
        place = (np.arange(size, dtype=np.float64) + shift) * (length / size) - shift
        place = place.clip(0, length - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, length - 1)
        weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values
