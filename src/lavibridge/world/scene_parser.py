"""Parses a picture of the world into things, by classical image analysis without a learned part.

    pixels -> nearest colours of the world -> components of everything but the ground -> one mask per hue
           -> best shape, side and place -> texture from the white pixels -> occlusions

The parser reports every part that it cannot identify, with a reason: two merged things of one colour, half a
thing, a blotch, noise. It never guesses. It keeps what is certain about such a part, such as the colour of a
blotch of unknown shape (`ParsedScene.partial`).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8
from numpy import ndarray
from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.world.detections import ParsedScene, SceneDetection, UnreadablePart
from lavibridge.world.fitting import ShapeFit, fit_shape, fit_texture
from lavibridge.world.pixel_regions import connected_regions, grow_region, name_pixel_colors, region_core
from lavibridge.world.scene import CANVAS, COLORS, GROUND, WHITE

_HUES = tuple(COLORS)
_PALETTE = np.array([GROUND, WHITE, *COLORS.values()], dtype=np.float32)
_GROUND_LABEL, _WHITE_LABEL, _FIRST_HUE = 0, 1, 2

_KINDS = np.arange(len(_PALETTE))
_JOINED = (_KINDS[:, None] != _KINDS) & (_KINDS[:, None] != _GROUND_LABEL) & (_KINDS != _GROUND_LABEL)
"""Pairs of different colours other than the ground."""
_BLENDS_TO_GROUND = np.linalg.norm((_PALETTE[:, None] + _PALETTE) / 2 - _PALETTE[_GROUND_LABEL], axis=-1) < 25
"""Pairs of colours, such as black and white, whose mean is the ground's colour, so that their edge looks like
ground."""

_MIN_OVERLAP = 0.74
_MIN_LEAD = 0.01
"""Minimum lead in overlap of the best shape over any other."""
_HIDDEN_GAIN = 0.025
"""Minimum gain in overlap before a thing is read as partly hidden."""
_MIN_COVERED = 0.04
"""Minimum fraction of a thing that another must cover to count as being in front."""
_MAX_STRETCH = 1.3
_SPECK = 14
"""Components of at most this many pixels are specks; a few of them are ignored."""
_MAX_SPECKS = 60
"""Maximum number of pixels in all specks together."""
_MIN_CORE = 4
_MAX_PIECES = 6
_MAX_UNKNOWN = 0.25
_MAX_FADED = 70.0
"""Maximum RGB distance between a thing's mean colour and its named colour."""
_MAX_DOUBT = 0.7
"""Maximum ratio of that distance to the distance to the next colour."""
_GROUND_RANGE = 45.0
_MAX_SOILED = 24
"""Maximum number of pixels of the ground, away from all things, without the ground's colour."""


@dataclass(kw_only=True)
class _Part:
    """Pixels of one hue that may be a thing, with the fit that explains them best."""

    hue: int
    mask: Bool[ndarray, "64 64"]
    care: Bool[ndarray, "64 64"]
    fit: ShapeFit | None
    hidden: bool = False

    @property
    def is_whole(self) -> bool:
        return not self.hidden and _misfit(self) is None


def parse_scene(picture: Image.Image | UInt8[ndarray, "height width 3"]) -> ParsedScene:
    """Return the things in a 64 x 64 RGB picture, and a reason for each part that is not a thing.

    Raises DataError at other sizes.
    """
    pixels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if pixels.shape != (CANVAS, CANVAS, 3):
        raise DataError(f"the checker reads RGB pictures of {CANVAS} x {CANVAS}; this one is {pixels.shape}")
    floats = pixels.astype(np.float32)
    labels = name_pixel_colors(floats, _PALETTE, _GROUND_LABEL)
    patches, count = connected_regions((labels != _GROUND_LABEL) | _seams(labels))
    reasons = _soil(floats, labels)
    things: list[SceneDetection] = []
    occlusions: list[tuple[int, int]] = []
    partial: list[UnreadablePart] = []
    specks = 0
    for i in range(1, count + 1):
        patch = patches == i
        if patch.sum() <= _SPECK:
            specks += int(patch.sum())
            continue
        parts, problems = _split(patch, labels)
        reasons += problems
        seen: dict[int, SceneDetection] = {}
        for j, part in enumerate(parts):
            named = _name(part, patch, labels, floats)
            if isinstance(named, UnreadablePart):
                reasons.append(named.reason)
                partial.append(named)
            else:
                seen[j] = named
        numbers = {j: len(things) + n for n, j in enumerate(seen)}
        occlusions += [
            (numbers[j], numbers[k])
            for j in seen
            for k in seen
            if parts[k].hidden and parts[j].is_whole and _is_covered(seen[k], seen[j], labels == parts[j].hue)
        ]
        things += seen.values()
    if specks > _MAX_SPECKS:
        reasons.append(f"{specks} pixels of specks")
    return ParsedScene(
        things=tuple(things), unreadable=tuple(reasons), partial=tuple(partial), occlusions=tuple(occlusions)
    )


def _seams(labels: Int[ndarray, "64 64"]) -> Bool[ndarray, "64 64"]:
    """Return ground one pixel wide between different colours, or two pixels wide where their blend looks like
    ground."""
    seams = np.zeros(labels.shape, dtype=bool)
    padded = np.pad(labels, 2)
    for one, other in ((1, 1), (1, 2), (2, 1)):
        joined = _JOINED if one == other else _JOINED & _BLENDS_TO_GROUND
        for axis in (0, 1):
            before = np.roll(padded, one, axis)[2:-2, 2:-2]
            after = np.roll(padded, -other, axis)[2:-2, 2:-2]
            seams |= joined[before, after]
    return seams & (labels == _GROUND_LABEL)


def _soil(pixels: Float32[ndarray, "64 64 3"], labels: Int[ndarray, "64 64"]) -> list[str]:
    """Return a reason if the ground, away from all things, has patches of another grey."""
    clear = ~grow_region(grow_region(labels != _GROUND_LABEL))
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    mean = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    far = np.linalg.norm(mean - _PALETTE[_GROUND_LABEL], axis=-1) > _GROUND_RANGE
    return ["a patch that is neither ground nor a thing"] if (far & clear).sum() > _MAX_SOILED else []


def _split(patch: Bool[ndarray, "64 64"], labels: Int[ndarray, "64 64"]) -> tuple[list[_Part], list[str]]:
    """Split a patch into fitted parts of one hue each, or return a reason why it cannot be split."""
    inside = np.where(patch, labels, _GROUND_LABEL)
    hues = [h for h in range(_FIRST_HUE, len(_PALETTE)) if region_core(inside == h).sum() >= _MIN_CORE]
    if not hues:
        return [], ["a patch of no hue"]
    known = patch & np.isin(np.arange(len(_PALETTE)), [_WHITE_LABEL, *hues])[labels]
    if (patch & ~known & (labels != _GROUND_LABEL)).sum() > _MAX_UNKNOWN * patch.sum():
        return [], ["a patch of many colours"]
    care = known | ~patch
    if len(hues) == 1:
        whole = known | (patch & (labels == _GROUND_LABEL))  # its seams are its own
        return [_fitted(hues[0], whole, care | whole)], []
    owner = _share_white(inside, hues)
    parts: list[_Part] = []
    for hue in hues:
        pieces = _pieces(owner == hue)
        if len(pieces) > _MAX_PIECES:
            return [], ["a patch of many pieces"]
        found = [_fitted(hue, piece, care) for piece in pieces]
        if len(found) > 1 and not all(part.is_whole for part in found):
            found = [_fitted(hue, np.logical_or.reduce(pieces), care)]
        parts += found
    _hide(parts, care)
    return parts, []


def _fitted(hue: int, mask: Bool[ndarray, "64 64"], care: Bool[ndarray, "64 64"]) -> _Part:
    return _Part(hue=hue, mask=mask, care=care, fit=fit_shape(mask, care))


def _pieces(mask: Bool[ndarray, "64 64"]) -> list[Bool[ndarray, "64 64"]]:
    numbered, count = connected_regions(mask)
    return [numbered == i for i in range(1, count + 1) if (numbered == i).sum() > _SPECK]


def _share_white(inside: Int[ndarray, "64 64"], hues: list[int]) -> Int[ndarray, "64 64"]:
    """Give each white area between several hues to the hue with the longest shared border."""
    owner = inside.copy()
    numbered, count = connected_regions(inside == _WHITE_LABEL)
    for i in range(1, count + 1):
        rim = grow_region(numbered == i)
        owner[numbered == i] = max(hues, key=lambda hue: int((rim & (inside == hue)).sum()))
    return owner


def _hide(parts: list[_Part], care: Bool[ndarray, "64 64"]) -> None:
    """Refit parts as hidden behind whole ones where that explains them clearly better."""
    gains: list[tuple[float, int, _Part]] = []
    for i, part in enumerate(parts):
        fronts = [grow_region(other.mask) for other in parts if other is not part and other.is_whole]
        if not fronts:
            continue
        in_view = care & ~(np.logical_or.reduce(fronts) & ~part.mask)
        fit = fit_shape(part.mask, in_view, hidden=True)
        alone = part.fit.overlap if part.fit is not None else 0.0
        if fit is not None and fit.overlap > alone + _HIDDEN_GAIN:
            behind = _Part(hue=part.hue, mask=part.mask, care=in_view, fit=fit, hidden=True)
            gains.append((fit.overlap - alone, i, behind))
    for _, i, behind in sorted(gains, key=lambda gain: -gain[0]):
        if any(other.is_whole for other in parts if other is not parts[i]):
            parts[i] = behind


def _misfit(part: _Part) -> str | None:
    """Return why the pixels of a part are not one shape of the world, or None if they are."""
    if part.fit is None:
        return "of no size of the world"
    if part.fit.overlap < _MIN_OVERLAP:
        return "of no shape of the world"
    if part.fit.lead < _MIN_LEAD:
        return "between two shapes"
    region = part.fit.region()
    if (
        region_core(region & part.care & ~part.mask).sum() >= _MIN_CORE
        or region_core(part.mask & ~region).sum() >= _MIN_CORE
    ):
        return "with a piece missing or added"
    rows, columns = part.mask.any(axis=1).sum(), part.mask.any(axis=0).sum()
    if not part.hidden and max(rows, columns) > _MAX_STRETCH * min(rows, columns):
        return "stretched or cut"
    return None


def _name(
    part: _Part,
    patch: Bool[ndarray, "64 64"],
    labels: Int[ndarray, "64 64"],
    pixels: Float32[ndarray, "64 64 3"],
) -> SceneDetection | UnreadablePart:
    """Return a part as a detection, or why it is unreadable and what is certain about it."""
    color = _HUES[part.hue - _FIRST_HUE]
    misfit = _misfit(part)
    colored = part.mask & (labels == part.hue)
    is_pure = bool(colored.any()) and _is_pure(colored, part.hue, pixels)
    if misfit is not None or part.fit is None:
        return UnreadablePart(reason=f"something {color} {misfit}", color=color if is_pure else None)
    if not is_pure:
        return UnreadablePart(
            reason=f"something of a colour between {color} and another", shape=part.fit.shape
        )
    texture = fit_texture(part.mask & (labels == _WHITE_LABEL), colored, part.fit)
    if texture is None:
        reason = f"something {color} ({part.fit.shape}) of no texture of the world"
        return UnreadablePart(reason=reason, color=color, shape=part.fit.shape)
    return SceneDetection(
        shape=part.fit.shape,
        color=color,
        texture=texture[0],
        size=part.fit.size,
        left=part.fit.left,
        top=part.fit.top,
        side=part.fit.side,
        overlap=part.fit.overlap,
        region=part.fit.region(),
        visible=part.mask,
    )


def _is_pure(colored: Bool[ndarray, "64 64"], hue: int, pixels: Float32[ndarray, "64 64 3"]) -> bool:
    """Whether the mean colour of a part, away from its edges, is clearly its hue."""
    middle = region_core(colored)
    mean = pixels[middle if middle.any() else colored].mean(axis=0)
    distance = np.linalg.norm(_PALETTE - mean, axis=-1)
    others = np.delete(distance, hue)
    return bool(distance[hue] <= _MAX_FADED and distance[hue] <= _MAX_DOUBT * others.min())


def _is_covered(back: SceneDetection, front: SceneDetection, in_front: Bool[ndarray, "64 64"]) -> bool:
    """Whether the front thing hides part of the back one: the front's colour shows in the shared area."""
    shared = back.region & front.region
    area = int(shared.sum())
    shows = (shared & in_front).sum() >= 0.5 * area and (shared & back.visible).sum() <= 0.3 * area
    return bool(area >= _MIN_COVERED * back.region.sum() and shows)
