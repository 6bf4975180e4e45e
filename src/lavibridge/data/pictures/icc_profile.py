"""Converts every picture to sRGB over white, following its ICC profile and its transparency.

    numbers --profile--> sRGB          without a profile, or with one equal to sRGB: numbers stay unchanged
    transparency --> over white

Display P3, Adobe RGB, CMYK and greys with dot gain use other numbers for the same colours. If a profile is
unusable, the picture gets a warning and its numbers count as sRGB, as in viewers. Source: the International
Color Consortium's ICC.1:2022, through Little CMS in Pillow.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_MAX_CACHED_TRANSFORMS = 16
"""Transforms kept in memory; a data set has few profiles."""
_SRGB_TOLERANCE = 1
"""Maximum difference from sRGB, in steps of 255, at which a profile counts as sRGB: the size of rounding
errors."""
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of a profile -> mode of the pictures it applies to."""


def to_srgb(image: Image.Image, depth: int) -> tuple[Image.Image, str | None]:
    """Convert any mode to RGB over white; also return a warning if the colour profile was ignored, or None.

    `depth` is the number of bits per sample in the file, in which a PNG states its transparent colour.
    """
    colours, alpha = _split_alpha(image, depth)
    is_grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    profile, fault = image.info.get("icc_profile"), None
    if profile:
        try:
            colours = _convert_to_srgb(colours, bytes(profile), is_grey)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            fault = f"its colour profile cannot be used ({error}); its numbers count as sRGB"
    colours = colours.convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        colours = Image.alpha_composite(white, colours).convert("RGB")
    return colours, fault


def _split_alpha(image: Image.Image, depth: int) -> tuple[Image.Image, Image.Image | None]:
    """Split a picture into its colours (L, RGB or CMYK) and its alpha channel, or None if it is opaque."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit greys
        deep = np.asarray(image).astype(np.int64)
        grey = np.clip(deep / 257.0, 0, 255).round().astype(np.uint8)
        opaque = None
        if isinstance(transparent, int):
            opaque = Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8))
        return Image.fromarray(grey), opaque
    if image.mode == "CMYK":
        return image, None
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    if image.mode in ("L", "RGB") and transparent is not None and depth != 8:
        # Pillow scales samples to 8 bits, but not the transparent colour.
        image = image.copy()
        image.info["transparency"] = (
            _scale_sample(transparent, depth)
            if isinstance(transparent, int)
            else tuple(_scale_sample(value, depth) for value in transparent)
        )
    rgba = image.convert("RGBA")
    return rgba.convert("RGB"), rgba.getchannel("A")


def _scale_sample(value: int, depth: int) -> int:
    """Scale a sample of `depth` bits to 8 bits, as Pillow does."""
    return value >> (depth - 8) if depth > 8 else value * 255 // (2**depth - 1)


def _convert_to_srgb(colours: Image.Image, profile: bytes, is_grey: bool) -> Image.Image:
    """Convert colours to sRGB. Raises a Pillow error or ValueError for a broken or unsuitable profile."""
    mode, transform = _srgb_transform(profile)
    if (colours.mode == "CMYK") != (mode == "CMYK") or (mode == "L" and not is_grey):
        raise ValueError(f"it is for {mode}, but the picture is {'grey' if is_grey else colours.mode}")
    if transform is None:
        return colours
    if mode == "L":
        colours = colours.getchannel(0)
    return transform.apply(colours.convert(mode))


@lru_cache(maxsize=_MAX_CACHED_TRANSFORMS)
def _srgb_transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode of a profile and its transform to sRGB; the transform is None for sRGB itself."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if space not in _MODES:
        raise ValueError(f"it is for {space or 'nothing'}, not for {', '.join(_MODES)}")
    mode = _MODES[space]
    transform = ImageCms.buildTransform(
        opened,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode == "CMYK":
        return mode, transform
    probe = Image.fromarray(_probe_colours(mode))
    before, after = (np.asarray(each.convert("RGB")).astype(int) for each in (probe, transform.apply(probe)))
    return mode, None if np.abs(before - after).max() <= _SRGB_TOLERANCE else transform


def _probe_colours(mode: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Return every grey, or a grid over all colours."""
    if mode == "L":
        return np.arange(256, dtype=np.uint8)[None]
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
