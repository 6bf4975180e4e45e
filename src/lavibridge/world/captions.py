"""Samples prompts of the world: a spec, a scene that satisfies it, and a caption that states it.

The order is always spec -> scene -> caption, so every caption is true by construction and nothing parses it.
The categories take T2I-CompBench's names where they ask the same question (Huang et al. 2023, arXiv
2307.06350).

    one            one thing with every attribute            "a small striped red circle"
    plain          one thing, most attributes left open      "a red circle"
    two            two things with every attribute           "a red star and a small striped blue ring"
    color ...      two things, each with one attribute kind  "a red circle and a blue square"
    spatial        a direction between two things            "a red circle to the left of a blue square"
    non-spatial    touching, inside, in front of             "a red circle inside a blue ring"
    complex        three things, a direction, attributes
    counting       two to four alike                         "three green stars"
    negation       what is absent                            "a red circle and no square"
    long           several sentences
    unseen-pairs   pairs of colour and shape withheld from every training
    unseen-words   synonyms and phrasings withheld from every caption (`wording="unseen"`)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from lavibridge.world.caption_templates import write_caption
from lavibridge.world.layout import lay_out_things
from lavibridge.world.rng import rng_pick, rng_pick_weighted
from lavibridge.world.scene import (
    COLORS,
    DIRECTIONS,
    INTERACTIONS,
    PLACES,
    SHAPES,
    TEXTURES,
    WITHHELD,
    Scene,
    SceneGroup,
    SceneRelation,
    SceneSpec,
    Thing,
)

TRAINING_MIX: dict[str, float] = {
    "one": 0.22,
    "plain": 0.08,
    "two": 0.16,
    "color": 0.08,
    "shape": 0.03,
    "texture": 0.05,
    "spatial": 0.13,
    "non-spatial": 0.05,
    "complex": 0.04,
    "counting": 0.08,
    "negation": 0.04,
    "long": 0.04,
}
"""Share of each category among training pairs."""

_HUES = tuple(COLORS)
_MENTIONED_TEXTURES = {"solid": 0.5, "striped": 0.25, "checkered": 0.25}
_UNMENTIONED_TEXTURES = {"solid": 0.6, "striped": 0.2, "checkered": 0.2}

CATEGORIES = (*TRAINING_MIX, "unseen-pairs", "unseen-words")


@dataclass(frozen=True, kw_only=True)
class CaptionedScene:
    """A scene and a caption that is true of it. Its `index` and the seed identify it."""

    index: int
    category: str
    caption: str
    spec: SceneSpec
    scene: Scene


def sample_captioned_scene(
    seed: int,
    index: int,
    *,
    category: str | None = None,
    split: str = "train",
    mix: Mapping[str, float] = TRAINING_MIX,
) -> CaptionedScene:
    """Return the captioned scene that (seed, index, category, split) identifies: always the same one.

    Without a category, the categories are drawn with the shares in `mix`. `split` separates the random
    streams: scenes of the split "test" are drawn independently of those of "train".
    """
    rng = np.random.default_rng([crc32(f"{split}/{category}".encode()), seed, index])
    if category is None:
        category = rng_pick_weighted(rng, mix)
    while True:
        spec = sample_spec(rng, category)
        scene = sample_scene(rng, spec)
        if scene is not None:
            caption = write_caption(rng, spec, category)
            return CaptionedScene(index=index, category=category, caption=caption, spec=spec, scene=scene)


def evaluation_prompts(category: str, count: int, seed: int = 0) -> tuple[CaptionedScene, ...]:
    """Return `count` different evaluation prompts of a category, each with a scene that satisfies it.

    Raises ValueError for an unknown category, and if the category has fewer different prompts.
    """
    if category not in CATEGORIES:
        raise ValueError(f"no category {category!r} in the world; there are {', '.join(CATEGORIES)}")
    found: dict[str, CaptionedScene] = {}
    index = 0
    while len(found) < count:
        pair = sample_captioned_scene(seed, index, category=category, split="test")
        found.setdefault(pair.caption, pair)
        index += 1
        if index > 50 * count + 1000:
            raise ValueError(
                f"category {category!r} has only {len(found)} different prompts, but {count} are needed"
            )
    return tuple(found.values())


def sample_spec(rng: np.random.Generator, category: str) -> SceneSpec:
    """Sample the spec of a prompt of the category, without a scene."""
    if category == "unseen-words":
        category = rng_pick(rng, ["one", "one", "color", "spatial"])
    if category == "unseen-pairs":
        color, shape = WITHHELD[rng.integers(len(WITHHELD))]
        return SceneSpec(groups=(_group(rng, color=color, shape=shape, place=_place(rng)),))
    if category == "one":
        return SceneSpec(groups=(_group(rng, place=_place(rng)),))
    if category == "plain":
        left_open = {name: None for name in ("texture", "size") if rng.random() < 0.75}
        if left_open and rng.random() < 0.15:
            left_open["color"] = None
        return SceneSpec(groups=(_group(rng, **left_open),))
    if category == "two":
        return SceneSpec(groups=_different(rng, 2, "full"))
    if category in ("color", "shape", "texture"):
        return SceneSpec(groups=_different(rng, 2, category))
    if category == "spatial":
        detail = "full" if rng.random() < 0.3 else "color"
        return SceneSpec(groups=_different(rng, 2, detail), relation=_direction(rng))
    if category == "non-spatial":
        return _interaction(rng)
    if category == "complex":
        return SceneSpec(groups=_different(rng, 3, "some"), relation=_direction(rng))
    if category == "counting":
        count = int(rng.integers(2, 5))
        size = "small" if rng.random() < 0.3 else None
        return SceneSpec(groups=(_group(rng, texture=None, size=size, count=count),))
    if category == "negation":
        return _negation(rng)
    return SceneSpec(groups=_different(rng, 2, "some"), relation=_direction(rng))  # long


def _group(rng: np.random.Generator, **fixed: object) -> SceneGroup:
    """Sample every attribute of a group except the given ones (`None` leaves one out)."""
    while True:
        drawn: dict[str, object] = {
            "shape": rng_pick(rng, SHAPES),
            "color": rng_pick(rng, _HUES),
            "texture": _texture(rng),
            "size": rng_pick(rng, ["small", "large"]),
        }
        group = SceneGroup(**{**drawn, **fixed})  # type: ignore[arg-type]
        if "color" in fixed or (group.color, group.shape) not in WITHHELD:
            return group


def _place(rng: np.random.Generator) -> str | None:
    return rng_pick(rng, PLACES) if rng.random() < 0.15 else None


def _texture(rng: np.random.Generator) -> str | None:
    """Sample a texture; half of the time leave out `solid`, the ordinary case."""
    texture = rng_pick_weighted(rng, _MENTIONED_TEXTURES)
    return None if texture == "solid" and rng.random() < 0.5 else texture


def _different(rng: np.random.Generator, count: int, detail: str) -> tuple[SceneGroup, ...]:
    """Sample groups that cannot be confused: no two share a shape, or the attribute that tells them apart."""
    hidden: dict[str, dict[str, object]] = {
        "full": {},
        "color": {"texture": None, "size": None},
        "shape": {"texture": None, "color": None},
        "texture": {"color": None, "size": None},
    }
    while True:
        groups = []
        for _ in range(count):
            fixed = dict(hidden[detail]) if detail != "some" else {}
            if detail == "some":
                fixed = {name: None for name in ("texture", "size") if rng.random() < 0.5}
            if detail == "texture":
                fixed["texture"] = rng_pick(rng, TEXTURES)
            groups.append(_group(rng, **fixed))
        key = {"shape": "shape", "texture": "texture"}.get(detail, "color")
        if (
            len({getattr(group, key) for group in groups}) == count
            and len({g.shape for g in groups}) == count
        ):
            return tuple(groups)


def _direction(rng: np.random.Generator) -> SceneRelation:
    return SceneRelation(name=rng_pick(rng, DIRECTIONS), subject=0, object=1)


def _interaction(rng: np.random.Generator) -> SceneSpec:
    """Sample two solid things of different colours; the container of another thing is a ring."""
    name = rng_pick(rng, INTERACTIONS)
    hidden: dict[str, object] = {"texture": None, "size": None}
    while True:
        subject = _group(rng, **hidden)
        other = _group(rng, **(hidden | {"shape": "ring"} if name == "inside" else hidden))
        withheld = (other.color, other.shape) in WITHHELD
        if subject.color != other.color and subject.shape != other.shape and not withheld:
            return SceneSpec(groups=(subject, other), relation=SceneRelation(name=name, subject=0, object=1))


def _negation(rng: np.random.Generator) -> SceneSpec:
    """Sample one thing, and a shape or a colour that is absent."""
    group = _group(rng, texture=None, size=None)
    while True:
        absent = (
            SceneGroup(shape=rng_pick(rng, SHAPES))
            if rng.random() < 0.6
            else SceneGroup(color=rng_pick(rng, _HUES))
        )
        if absent.shape != group.shape and absent.color != group.color:
            return SceneSpec(groups=(group,), absent=(absent,))


def sample_scene(rng: np.random.Generator, spec: SceneSpec) -> Scene | None:
    """Fill in the open attributes of a spec and place everything. Returns None if it does not fit."""
    things: list[Thing] = []
    places: list[str | None] = []
    interaction = spec.relation.name if spec.relation and spec.relation.name in INTERACTIONS else None
    many = sum(group.count for group in spec.groups)
    for i, group in enumerate(spec.groups):
        filled = _fill(rng, group, small=many > 2)
        if interaction:
            size = {"inside": ("small", "huge"), "in front of": ("small", "large")}.get(interaction)
            filled = SceneGroup(
                shape=filled.shape, color=filled.color, texture="solid", size=size[i] if size else filled.size
            )
        things += [_unplaced(filled)] * group.count
        places += [group.place] * group.count
    return lay_out_things(rng, things, spec.relation, places)


def _fill(rng: np.random.Generator, group: SceneGroup, *, small: bool) -> SceneGroup:
    """Fill in every open attribute of the group without creating a withheld pair."""
    while True:
        shape = group.shape or rng_pick(rng, SHAPES)
        color = group.color or rng_pick(rng, _HUES)
        if (color, shape) not in WITHHELD or (group.color, group.shape) in WITHHELD:
            break
    texture = group.texture or (
        "solid" if group.color and rng.random() < 0.8 else rng_pick_weighted(rng, _UNMENTIONED_TEXTURES)
    )
    size = group.size or ("small" if small and rng.random() < 0.7 else rng_pick(rng, ["small", "large"]))
    return SceneGroup(shape=shape, color=color, texture=texture, size=size)


def _unplaced(group: SceneGroup) -> Thing:
    """Return a thing with all attributes of a filled group, not yet placed."""
    assert group.shape is not None
    assert group.color is not None
    assert group.texture is not None
    assert group.size is not None
    return Thing(shape=group.shape, color=group.color, texture=group.texture, size=group.size, left=0, top=0)
