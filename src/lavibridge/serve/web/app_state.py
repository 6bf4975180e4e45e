"""The state that all routes of the application share."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from lavibridge.serve.engine.model_pool import ModelPool
from lavibridge.serve.engine.queue import Queue
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.limits import Limits


@dataclass(frozen=True, kw_only=True)
class AppState:
    """Models, the queue and its worker, limits and settings."""

    models: ModelPool
    queue: Queue
    worker: Worker
    limits: Limits
    runs: Path | None
    """The folder whose runs the page shows."""
    logs_prompts: bool = False
    started: float = field(default_factory=time.time)
