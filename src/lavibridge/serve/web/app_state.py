"""The state that all routes of the application share."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lavibridge.serve.engine.queue import Queue
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.limits import Limits


@dataclass(frozen=True, kw_only=True)
class AppState:
    """Loaded models, the queue and its worker, limits and settings."""

    models: Mapping[str, ServedModel]
    queue: Queue
    worker: Worker
    limits: Limits
    runs: Path | None
    """The folder whose runs the page shows."""
    logs_prompts: bool = False
    started: float = field(default_factory=time.time)
