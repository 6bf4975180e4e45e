"""The models of a server by name: bridges that load at its start, and pairs of a pivot, composed on demand.

    start      bridges, and the first pair
    request    LANGUAGE+VISION is composed unless it is in memory, where the latest `Limits.pairs` stay

Composing runs both models, so it waits for the worker's turn to end, and the worker for it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

import torch

from lavibridge.core.errors import LaviError
from lavibridge.core.log import console
from lavibridge.serve.engine.fair_lock import FairLock
from lavibridge.serve.engine.pivot_pairs import PivotPairs
from lavibridge.serve.engine.served_model import ServedModel


class PairUnavailable(LaviError):
    """A pair that the server cannot compose; its log says why."""


class ModelPool:
    """Finds models by name."""

    def __init__(
        self, loaded: Mapping[str, ServedModel], pairs: PivotPairs | None = None, most_pairs: int = 8
    ) -> None:
        """Compose the first pair, so that what is wrong with the pivot shows at the start.

        Bridges come before pairs of the same name. Raises LaviError if the pair cannot be composed.
        """
        self.turns = FairLock()
        """Who holds it may run the models."""
        self._loaded = dict(loaded)
        self._pairs, self._most_pairs = pairs, most_pairs
        self._composed: OrderedDict[str, ServedModel] = OrderedDict()
        self._lock = Lock()  # of the line above
        if pairs is not None and self.pairs:
            first = next(iter(self.pairs))
            console.print(f"composing {first}", soft_wrap=True)
            self._composed[first] = pairs.compose(first)

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """Language half and vision half of each pair by its name, composed or not."""
        pairs = {} if self._pairs is None else self._pairs.names
        return {name: halves for name, halves in pairs.items() if name not in self._loaded}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all models, composed or not; the first is the default."""
        return (*self._loaded, *self.pairs)

    @property
    def in_memory(self) -> dict[str, ServedModel]:
        """The models that are ready."""
        with self._lock:
            return {**self._loaded, **self._composed}

    def find(self, name: str) -> ServedModel | None:
        """Return a model if it is in memory, and record its use."""
        with self._lock:
            if name in self._composed:
                self._composed.move_to_end(name)
                return self._composed[name]
            return self._loaded.get(name)

    def open(self, name: str) -> ServedModel:
        """Return a model from any thread but the worker's; may take seconds. Raises PairUnavailable."""
        found = self.find(name)
        if found is not None:
            return found
        with self.turns.hold():
            return self.get(name)

    def get(self, name: str) -> ServedModel:
        """Return a model while `turns` is held. Raises KeyError if there is none, or PairUnavailable."""
        found = self.find(name)
        if found is not None:
            return found
        if self._pairs is None or name not in self._pairs.names:
            raise KeyError(name)
        console.print(f"composing {name}", soft_wrap=True)
        try:
            with torch.inference_mode(False):
                model = self._pairs.compose(name)
        except LaviError as error:
            console.print(f"{name} cannot be composed: {error}", soft_wrap=True)
            raise PairUnavailable(f"{name} cannot be composed; the server's log has the reason") from error
        with self._lock:
            self._composed[name] = model
            while len(self._composed) > self._most_pairs:
                self._composed.popitem(last=False)
        return model
