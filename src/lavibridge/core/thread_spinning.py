"""Sets how long an OpenMP thread spins before it sleeps, so that a busy machine does not stall.

GNU OpenMP lets a thread without work spin 300,000 times, in case work comes soon. If another program is busy,
the thread that it waits for is often not running, and the spinning thread occupies the core that this thread
needs: next to one busy process per core, two threads took up to 23 times as long as one. If threads sleep at
once, an idle machine loses up to half of its speed. SPIN_COUNT is a compromise (LOG.md, 2026-11-30).

libgomp reads its environment once, when torch loads it: call `set_spin_count` before you import torch.
"""

import os
import sys

SPIN_COUNT = "10000"
SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""If one of these is set, the user has made a choice."""


def set_spin_count() -> None:
    """Set GNU OpenMP's spin count, unless the user has chosen a policy or torch is already imported."""
    if "torch" not in sys.modules and not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
