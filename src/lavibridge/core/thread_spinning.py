"""Sets how long an OpenMP thread spins before it sleeps, so that a busy machine does not stall.

GNU OpenMP lets a thread without work spin 300,000 times, in case work comes soon. Beside another busy
program, the thread that it waits for is often not running, and the spinning thread occupies the core that
this one needs: two threads beside one busy process a core took up to 23 times as long as one thread. A thread
that sleeps at once costs an idle machine up to half of its speed. SPINS lies between (LOG.md, 2026-11-30).

libgomp reads its environment once, when torch loads it: call this before torch is imported.
"""

import os
import sys

SPIN_COUNT = "10000"
SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""The user has chosen where one of these is set."""


def set_spin_count() -> None:
    """Set GNU OpenMP's spin count, unless the user has chosen a policy or torch is already imported."""
    if "torch" not in sys.modules and not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
