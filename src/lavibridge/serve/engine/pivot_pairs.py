"""The pairs of a pivot on a server: every language model with every vision model.

    LANGUAGE+VISION --compose--> bridge --> ServedModel

A model loads once and is part of every pair that has it; it is freed with the last of them.
"""

from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from lavibridge.core.device import pick_device
from lavibridge.language.parts.proxy import ProxySettings
from lavibridge.pivot.compose import bridge_of_halves, open_half
from lavibridge.pivot.folder import Side, read_pivot
from lavibridge.pivot.half import Model, StoredHalf
from lavibridge.serve.engine.served_model import ServedModel

Pair = tuple[str, str]
"""Names of a language half and a vision half."""


class PivotPairs:
    """Composes the pairs of a pivot."""

    def __init__(
        self, folder: str | Path, device: str, batch_size: int, proxy: ProxySettings | None = None
    ) -> None:
        """``proxy`` revises the prompts of all pairs. Raises RunError if the folder holds no pivot."""
        self.pivot, self.proxy = read_pivot(folder), proxy
        self.device, self.batch_size = pick_device(device), batch_size
        first = self.pivot.description.reference
        languages = sorted(self.pivot.names("language"), key=lambda name: (name != first, name))
        self.names: dict[str, Pair] = {
            f"{language}+{vision}": (language, vision)
            for language in languages
            for vision in self.pivot.names("vision")
        }
        """Language half and vision half of each pair by its name; the first language model comes first."""
        self._models: WeakValueDictionary[tuple[Side, str], Model] = WeakValueDictionary()
        self._halves: dict[tuple[Side, str], StoredHalf] = {}
        self._locks = {language: Lock() for language in languages}

    def compose(self, name: str) -> ServedModel:
        """Return a pair, ready to draw. Raises LaviError if a half or its model cannot be opened."""
        language, vision = self.names[name]
        bridge = bridge_of_halves(
            self.pivot, self._open("language", language), self._open("vision", vision)
        ).to(self.device)
        if self.proxy is not None:
            bridge.language.use_proxy(self.proxy)
        return ServedModel(name, bridge, self.batch_size, lock=self._locks[language])

    def _open(self, side: Side, name: str) -> tuple[StoredHalf, Model]:
        key = (side, name)
        model = self._models.get(key)
        if model is None:
            self._halves[key], model = open_half(self.pivot, side, name)
            self._models[key] = model
        return self._halves[key], model
