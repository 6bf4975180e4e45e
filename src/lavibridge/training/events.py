"""What happens once in a while: every n steps, an action."""

from collections.abc import Callable
from dataclasses import dataclass

from lavibridge.training.loop import Report, State


@dataclass(frozen=True)
class Every:
    """Do `action` after every `steps` steps; 0 is never."""

    steps: int
    action: Callable[[State, Report], None]

    def __call__(self, state: State, report: Report) -> None:
        """Called by the loop after each step."""
        if self.steps and state.step % self.steps == 0:
            self.action(state, report)
