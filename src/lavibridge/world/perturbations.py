"""Makes perturbations that must not change the checker's answer, and counterfactuals that must.

A counterfactual is a drawn scene with exactly one fact changed, so that the prompt is no longer true of it.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageFilter

from lavibridge.world.scene import (
    CANVAS,
    COLORS,
    DIRECTIONS,
    GROUND,
    SHAPES,
    TEXTURES,
    Scene,
    SceneSpec,
    Thing,
    matches_group,
)

Picture = UInt8[ndarray, "64 64 3"]


def _identity(picture: Picture, seed: int) -> Picture:
    """Return the picture unchanged."""
    return picture


def _add_noise(picture: Picture, seed: int) -> Picture:
    """Add Gaussian noise with a standard deviation of 10 of 255."""
    noisy = picture + np.random.default_rng(seed).normal(0, 10, picture.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)


def _blur(picture: Picture, seed: int) -> Picture:
    """Apply a Gaussian blur with a radius of 0.6 pixels."""
    return np.array(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(0.6)))


def _compress(picture: Picture, seed: int) -> Picture:
    """Compress to JPEG at quality 75 and decode again."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=75)
    return np.array(Image.open(file).convert("RGB"))


def _shift(picture: Picture, seed: int) -> Picture:
    """Shift by one pixel in the direction that the seed selects; ground fills the edge."""
    moved = np.roll(picture, 1 if seed % 2 else -1, axis=seed // 2 % 2)
    edge = 0 if seed % 2 else -1
    moved[(edge, slice(None)) if seed // 2 % 2 == 0 else (slice(None), edge)] = GROUND
    return moved


PERTURBATIONS: dict[str, Callable[[Picture, int], Picture]] = {
    "clean": _identity,
    "noise": _add_noise,
    "blur": _blur,
    "jpeg": _compress,
    "shift": _shift,
}


def counterfactuals(scene: Scene, spec: SceneSpec) -> Iterator[tuple[str, Scene]]:
    """Yield (name, scene) for scenes that differ by a single fact from one that satisfies the spec, and break
    it."""
    things = scene.things
    yield from _changed_things(things, spec)
    if len(things) == len(spec.groups) == 2 and spec.groups[0].color and spec.groups[1].color:
        first, second = things
        swapped = replace(first, color=second.color), replace(second, color=first.color)
        if first.color != second.color and not _could_be(swapped, spec):
            yield "colors swapped", Scene(things=swapped)
    yield "removed", Scene(things=things[1:])
    extra = _extra(things)
    if extra is not None:
        yield "one more", Scene(things=(*things, extra))
    if spec.relation is not None and spec.relation.name in DIRECTIONS:
        flip_x = spec.relation.name in DIRECTIONS[:2]
        yield "flipped", Scene(things=tuple(_mirror(thing, flip_x) for thing in things))


def _changed_things(things: tuple[Thing, ...], spec: SceneSpec) -> Iterator[tuple[str, Scene]]:
    """Change one attribute of one thing, for each attribute that the prompt names."""
    for i, thing in enumerate(things):
        group = next((g for g in spec.groups if matches_group(thing, g)), None)
        if group is None or thing.size == "huge":
            continue
        changes: dict[str, dict[str, str | int]] = {
            "color": {"color": _next(tuple(COLORS), thing.color)},
            "shape": {"shape": _next(SHAPES, thing.shape)},
            "texture": {"texture": _next(TEXTURES, thing.texture)},
            "size": _resized(thing),
        }
        for name, change in changes.items():
            changed = (*things[:i], replace(thing, **change), *things[i + 1 :])  # type: ignore[arg-type]
            if (
                getattr(group, name) is not None
                and change
                and not _could_be(changed, spec)
                and _apart(changed, i)
            ):
                yield name, Scene(things=changed)


def _could_be(things: tuple[Thing, ...], spec: SceneSpec) -> bool:
    """Whether all groups of the prompt could still be found, so that the change is no counterfactual."""
    free = list(things)
    for group in spec.groups:
        for _ in range(group.count):
            found = next((thing for thing in free if matches_group(thing, group)), None)
            if found is None:
                return False
            free.remove(found)
    return True


def _next(names: tuple[str, ...], name: str) -> str:
    return names[(names.index(name) + 1) % len(names)]


def _resized(thing: Thing) -> dict[str, str | int]:
    """Return the other size about the same centre, if it stays on the canvas."""
    size = "large" if thing.size == "small" else "small"
    grown = replace(thing, size=size)
    left, top = (round(c - grown.side / 2) for c in thing.center)
    fits = min(left, top) >= 0 and max(left, top) + grown.side <= CANVAS
    return {"size": size, "left": left, "top": top} if fits else {}


def _apart(things: tuple[Thing, ...], i: int) -> bool:
    """Whether thing `i` does not overlap the others."""
    a = things[i]
    return all(
        a.left + a.side < b.left
        or b.left + b.side < a.left
        or a.top + a.side < b.top
        or b.top + b.side < a.top
        for j, b in enumerate(things)
        if j != i
    )


def _extra(things: tuple[Thing, ...]) -> Thing | None:
    """Return one more small thing where it fits, with the next shape and colour, or None."""
    first = things[0]
    new = Thing(
        shape=_next(SHAPES, first.shape),
        color=_next(tuple(COLORS), first.color),
        texture="solid",
        size="small",
        left=0,
        top=0,
    )
    for left in range(2, CANVAS - new.side - 1, 4):
        for top in range(2, CANVAS - new.side - 1, 4):
            placed = replace(new, left=left, top=top)
            if _apart((*things, placed), len(things)):
                return placed
    return None


def _mirror(thing: Thing, flip_x: bool) -> Thing:
    side = CANVAS - thing.side
    return replace(thing, left=side - thing.left) if flip_x else replace(thing, top=side - thing.top)
