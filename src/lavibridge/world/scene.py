"""The contents of the miniature world: things with a shape, a colour, a texture, a size and a place.

A *scene* is the ground truth of a picture; a *spec* is the content of a prompt. A spec says less than a scene
(an attribute that it does not mention is `None` and may be anything), and the checker asks whether a picture
satisfies every clause of it.

    Scene = Thing, Thing, ...                    drawn in this order: later things cover earlier ones
    Spec  = Group, Group, ... + relation + absences
"""

from dataclasses import dataclass

CANVAS = 64
"""Side of a picture in pixels."""

GROUND = (136, 139, 146)
"""Colour of the empty ground, a mid grey far from every hue below and from white."""

WHITE = (250, 249, 246)
"""The second tone of striped and checkered things; no thing has it as its own colour."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 44, 50),
    "orange": (247, 140, 30),
    "yellow": (252, 220, 64),
    "green": (38, 158, 74),
    "cyan": (64, 206, 220),
    "blue": (40, 78, 208),
    "purple": (146, 52, 178),
    "black": (28, 28, 36),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
TEXTURES = ("solid", "striped", "checkered")
SIZES: dict[str, int] = {"small": 18, "large": 28, "huge": 46}
"""Side of a thing's bounding box in pixels. Only a ring that holds another thing is huge."""

DIRECTIONS = ("left of", "right of", "above", "below")
INTERACTIONS = ("touching", "inside", "in front of")
RELATIONS = DIRECTIONS + INTERACTIONS
PLACES = ("left", "right", "top", "bottom")
"""The half of the canvas that contains a thing's centre."""

WITHHELD = (("purple", "triangle"), ("green", "cross"), ("yellow", "ring"), ("cyan", "star"))
"""Pairs of colour and shape that no training set contains: the test of unseen combinations."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One drawn thing; `left` and `top` are the corner of its bounding box in pixels."""

    shape: str
    color: str
    texture: str
    size: str
    left: int
    top: int

    @property
    def side(self) -> int:
        """Side of the bounding box in pixels."""
        return SIZES[self.size]

    @property
    def center(self) -> tuple[float, float]:
        """Centre (x, y) of the bounding box in pixels; y grows downwards."""
        return self.left + self.side / 2, self.top + self.side / 2


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The things of a picture in drawing order."""

    things: tuple[Thing, ...]


@dataclass(frozen=True, kw_only=True)
class SceneGroup:
    """The content of a noun phrase: `count` things that share these attributes (`None` = not mentioned)."""

    shape: str | None = None
    color: str | None = None
    texture: str | None = None
    size: str | None = None
    place: str | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class SceneRelation:
    """Group `subject` stands in relation `name` to group `object` (indices into `SceneSpec.groups`)."""

    name: str
    subject: int
    object: int


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """The content of a prompt. The groups name every thing in the picture: nothing else may be there."""

    groups: tuple[SceneGroup, ...]
    relation: SceneRelation | None = None
    absent: tuple[SceneGroup, ...] = ()


def matches_group(thing: Thing, group: SceneGroup) -> bool:
    """Whether a thing has every attribute of the group, including its place."""
    attributes = (
        (group.shape, thing.shape),
        (group.color, thing.color),
        (group.texture, thing.texture),
        (group.size, thing.size),
    )
    if any(required is not None and required != found for required, found in attributes):
        return False
    return group.place is None or is_in_place(thing.center, group.place)


def is_in_place(center: tuple[float, float], place: str) -> bool:
    """Whether a centre lies in the named half of the canvas."""
    x, y = center
    middle = CANVAS / 2
    return {"left": x < middle, "right": x > middle, "top": y < middle, "bottom": y > middle}[place]
