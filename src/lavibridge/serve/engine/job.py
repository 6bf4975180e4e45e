"""A job: the pictures of one request, from the queue to the end, and who wants to hear of it.

waiting -> drawing -> done | failed
waiting -> rejected (the server stops)        waiting, drawing -> cancelled
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from lavibridge.generation.sheet import Format
from lavibridge.serve.engine.wish import Wish

State = Literal["waiting", "drawing", "done", "failed", "cancelled", "rejected"]


@dataclass(kw_only=True, eq=False)
class Picture:
    """One picture of a job."""

    wish: Wish
    step: int = 0
    file: bytes | None = None
    """The finished picture, encoded as the job asks."""
    preview: bytes | None = None
    """What it looks like so far, as a PNG."""
    verdict: dict[str, dict[str, bool | str]] | None = None
    why: dict[str, Any] | None = None


@dataclass(kw_only=True, eq=False)
class Job:
    """The pictures of one request; only the desk changes it, under its lock."""

    pictures: list[Picture]
    is_signed: bool = True
    """Whether its files carry their recipe."""
    format: Format = "png"
    compression: int = 100
    """Of JPEG and WebP: from 0, the smallest files, to 100, the best."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    error: str | None = None
    is_own_fault: bool = False
    """Whether the error is the client's."""
    created: float = field(default_factory=time.time)
    seen: float = field(default_factory=time.monotonic)
    """When somebody last asked for it."""
    version: int = 0
    listeners: list[Callable[[], None]] = field(default_factory=list)
    tokens_used: int | None = None
    tokens_cut: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "drawing")

    @property
    def waits_for_preview(self) -> bool:
        """Whether somebody watches."""
        return bool(self.listeners) and not self.is_over

    def describe(self) -> dict[str, Any]:
        """Its state, without pictures."""
        return {
            "id": self.id,
            "object": "job",
            "created": int(self.created),
            "status": self.state,
            "error": self.error,
            "model": self.pictures[0].wish.model,
            "tokens_used": self.tokens_used,
            "tokens_cut": self.tokens_cut,
            "pictures": [
                {
                    "recipe": picture.wish.record(),
                    "step": picture.step,
                    "steps": picture.wish.steps,
                    "is_finished": picture.file is not None,
                    "verdict": picture.verdict,
                    "why": picture.why,
                }
                for picture in self.pictures
            ],
        }
