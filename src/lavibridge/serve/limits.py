"""The limits of a server and of one request; `lavi serve` sets most of them."""

from pydantic import Field

from lavibridge.core.config import Config

MAX_REQUEST_SEED = 2**53 - 1
"""The largest integer that every JSON parser reads exactly."""


class Limits(Config):
    """Bounds of one request and of the server."""

    queue: int = Field(default=64, ge=1)
    """Images that may be waiting or in progress; further requests get status 429."""
    batch_size: int = Field(default=8, ge=1, le=64)
    """Images generated together."""
    count: int = Field(default=10, ge=1, le=64)
    """Maximum images per request."""
    steps: int = Field(default=100, ge=1, le=1000)
    """Maximum denoising steps per image."""
    pixel_steps: int = Field(default=2**28, ge=1)
    """Maximum height x width x steps x images of a request; height and width in pixels."""
    side: int = Field(default=1024, ge=8)
    """Maximum height and width of an image in pixels."""
    prompt_bytes: int = Field(default=4096, ge=1)
    """Maximum length of a prompt, and of a negative prompt, in bytes of UTF-8."""
    body_bytes: int = Field(default=65_536, ge=1024)
    """Maximum length of a request's body in bytes."""
    connections: int = Field(default=512, ge=1)
    """Maximum open connections; the server uses at most a third of the files that it may open."""
    request_seconds: float = Field(default=30, gt=0)
    """Seconds that a client has to send a whole request; then the server closes the connection."""
    shutdown_seconds: float = Field(default=60, gt=0)
    """Maximum seconds of a graceful shutdown."""
    patience: float = Field(default=60, gt=0)
    """Seconds after which the server cancels a job that no client has asked about."""
    kept: int = Field(default=20, ge=1)
    """Number of finished jobs whose images clients can still fetch."""
    pairs: int = Field(default=8, ge=1)
    """Number of composed pairs of a pivot that stay in memory; the one that is unused longest leaves it."""
