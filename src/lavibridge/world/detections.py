"""What the checker reads out of a picture: things, parts that are no thing, and what covers what."""

from dataclasses import dataclass, field

from jaxtyping import Bool
from numpy import ndarray


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A thing as it was read; `side`, `left` and `top` are those of the shape that fits it best."""

    shape: str
    color: str
    texture: str
    size: str
    left: int
    top: int
    side: int
    overlap: float
    region: Bool[ndarray, "64 64"] = field(repr=False, compare=False)
    """The fitted shape, hidden parts included."""
    visible: Bool[ndarray, "64 64"] = field(repr=False, compare=False)
    """The pixels that were seen of it."""

    @property
    def center(self) -> tuple[float, float]:
        """Centre (x, y) of the fitted box in pixels; y grows downwards."""
        return self.left + self.side / 2, self.top + self.side / 2


@dataclass(frozen=True, kw_only=True)
class UnreadablePart:
    """A part that is no thing; `color` and `shape` where they are beyond doubt."""

    reason: str
    color: str | None = None
    shape: str | None = None


@dataclass(frozen=True, kw_only=True)
class ParsedScene:
    """All that was read in a picture."""

    things: tuple[Detection, ...]
    unreadable: tuple[str, ...]
    """One reason for each part of the picture that could not be read."""
    partial: tuple[UnreadablePart, ...] = ()
    """Those of the unreadable parts of which something is known."""
    occlusions: tuple[tuple[int, int], ...] = ()
    """Pairs (front, back) of indices into `things`: the first is whole and hides part of the second."""
