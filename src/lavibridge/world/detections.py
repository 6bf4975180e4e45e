"""What the scene parser returns: detected things, unreadable parts, and which thing occludes which."""

from dataclasses import dataclass, field

from jaxtyping import Bool
from numpy import ndarray


@dataclass(frozen=True, kw_only=True)
class SceneDetection:
    """A detected thing; `side`, `left` and `top` describe the best-fitting shape, in pixels."""

    shape: str
    color: str
    texture: str
    size: str
    left: int
    top: int
    side: int
    overlap: float
    region: Bool[ndarray, "64 64"] = field(repr=False, compare=False)
    """The pixels of the fitted shape, including occluded ones."""
    visible: Bool[ndarray, "64 64"] = field(repr=False, compare=False)
    """The pixels of the thing that are visible."""

    @property
    def center(self) -> tuple[float, float]:
        """Centre (x, y) of the fitted box in pixels; y grows downwards."""
        return self.left + self.side / 2, self.top + self.side / 2


@dataclass(frozen=True, kw_only=True)
class UnreadablePart:
    """A part that the parser cannot identify; `color` and `shape` are set where they are certain."""

    reason: str
    color: str | None = None
    shape: str | None = None


@dataclass(frozen=True, kw_only=True)
class ParsedScene:
    """Everything that the parser found in a picture."""

    things: tuple[SceneDetection, ...]
    unreadable: tuple[str, ...]
    """One reason for each unreadable part of the picture."""
    partial: tuple[UnreadablePart, ...] = ()
    """The unreadable parts with a certain colour or shape."""
    occlusions: tuple[tuple[int, int], ...] = ()
    """Pairs (front, back) of indices into `things`: the front thing is whole and hides part of the back one.
    """
