"""What every route works with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lavibridge.serve.engine.desk import Desk
from lavibridge.serve.engine.painter import Painter
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.limits import Limits


@dataclass(frozen=True, kw_only=True)
class House:
    """Loaded bridges, the desk, and who works at it."""

    painters: Mapping[str, Painter]
    desk: Desk
    worker: Worker
    limits: Limits
    runs: Path | None
    """Where runs are shown from."""
    logs_prompts: bool = False
    started: float = field(default_factory=time.time)
