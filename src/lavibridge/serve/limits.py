"""The limits of a server and of one request; `lavi serve` sets most of them."""

from pydantic import Field

from lavibridge.core.config import Config

MAX_REQUEST_SEED = 2**53 - 1
"""The largest integer that every JSON reader reads exactly."""


class Limits(Config):
    """Bounds of one request and of the server."""

    queue: int = Field(default=64, ge=1)
    """Pictures that may wait or be drawn at a time; further requests get status 429."""
    batch_size: int = Field(default=8, ge=1, le=64)
    """Pictures drawn together."""
    count: int = Field(default=10, ge=1, le=64)
    """Pictures of one request."""
    steps: int = Field(default=100, ge=1, le=1000)
    """Denoising steps of a picture."""
    side: int = Field(default=1024, ge=8)
    """Height and width of a picture in pixels."""
    prompt_bytes: int = Field(default=4096, ge=1)
    """Length of a prompt, and of a negative prompt, in bytes of UTF-8."""
    body_bytes: int = Field(default=65_536, ge=1024)
    """Length of a request's body in bytes."""
    patience: float = Field(default=60, gt=0)
    """Seconds after which the server cancels a job that nobody asks for."""
    kept: int = Field(default=20, ge=1)
    """Finished jobs whose pictures clients can still fetch."""
