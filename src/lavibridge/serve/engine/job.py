"""A job: the images of one HTTP request, their progress, and the job's listeners.

waiting -> drawing -> done | failed
waiting -> rejected (the server stops)        waiting, drawing -> cancelled
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from lavibridge.generation.image_files import ImageFormat
from lavibridge.serve.engine.request import Request

JobStatus = Literal["waiting", "drawing", "done", "failed", "cancelled", "rejected"]


@dataclass(kw_only=True, eq=False)
class JobImage:
    """One image of a job."""

    request: Request
    has_begun: bool = False
    step: int = 0
    file: bytes | None = None
    """The finished image in the format of the job."""
    preview: bytes | None = None
    """A preview of the unfinished image, as a PNG."""
    verdict: dict[str, dict[str, bool | str]] | None = None
    """The checker's answers, for images of the miniature world."""
    attention_maps: dict[str, Any] | None = None


@dataclass(kw_only=True, eq=False)
class Job:
    """The images of one HTTP request. Only the queue changes it, under its lock."""

    pictures: list[JobImage]
    """At least one, all of one model and size."""
    embed_recipe: bool = True
    """Whether its files contain their recipe."""
    format: ImageFormat = "png"
    compression: int = 100
    """Quality of JPEG and WebP, from 0 (smallest file) to 100 (best image)."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: JobStatus = "waiting"
    error: str | None = None
    is_own_fault: bool = False
    """Whether the client caused the error."""
    created: float = field(default_factory=time.time)
    seen: float = field(default_factory=time.monotonic)
    """When a client last asked about it."""
    version: int = 0
    listeners: list[Callable[[], None]] = field(default_factory=list)
    tokens_used: int | None = None
    tokens_cut: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job is done, failed, cancelled or rejected."""
        return self.state not in ("waiting", "drawing")

    @property
    def unfinished(self) -> list[JobImage]:
        """The images that are not done, in order."""
        return [picture for picture in self.pictures if picture.file is None]

    @property
    def batch_key(self) -> tuple[str, int, int]:
        """Model, width and height: images of jobs with an equal key can take a step together."""
        request = self.pictures[0].request
        return request.model, request.width, request.height

    @property
    def pixel_steps_left(self) -> int:
        """Steps that its images have yet to take, times their pixels."""
        _, width, height = self.batch_key
        left = (picture.request.num_inference_steps - picture.step for picture in self.unfinished)
        return width * height * sum(left)

    @property
    def wants_preview(self) -> bool:
        """Whether the job has listeners and is not over."""
        return bool(self.listeners) and not self.is_over

    def describe(self) -> dict[str, Any]:
        """Return the state as JSON, without the images."""
        return {
            "id": self.id,
            "object": "job",
            "created": int(self.created),
            "status": self.state,
            "error": self.error,
            "model": self.pictures[0].request.model,
            "tokens_used": self.tokens_used,
            "tokens_cut": self.tokens_cut,
            "pictures": [
                {
                    "recipe": picture.request.record(),
                    "step": picture.step,
                    "steps": picture.request.num_inference_steps,
                    "is_finished": picture.file is not None,
                    "verdict": picture.verdict,
                    "attention_maps": picture.attention_maps,
                }
                for picture in self.pictures
            ],
        }
