"""Writes and reads the LoRA files that a bridge's frozen weights contain, as parts of a saved bridge.

    plain LoRA      adapter_config.json, adapter_model.safetensors, in PEFT's layout
    other methods   adapter_model.safetensors alone, with LAYER.FACTOR (core/weight_changes.py) as the names

The weights are those at strength 1; bridge.json holds the strength.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lavibridge import lora
from lavibridge.core.tensors import save_tensors
from lavibridge.core.weight_changes import DOWN, UP, FoldedLora


def write_folded(folded: FoldedLora, folder: Path, source: str) -> tuple[str, ...]:
    """Write a folded LoRA file; returns the names of the files. ``source`` names the frozen model."""
    if folded.is_plain:
        lora.save_lora_pairs(folded.pairs, folder, source)
        return "adapter_config.json", lora.PEFT_WEIGHTS
    state = {
        f"{layer}.{factor}": value
        for layer, factors in folded.changes.items()
        for factor, value in factors.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(state, folder / lora.PEFT_WEIGHTS)
    return (lora.PEFT_WEIGHTS,)


def folded_of_state(state: Mapping[str, Tensor], about: Mapping[str, Any]) -> FoldedLora:
    """Return a folded LoRA file from its weights and its entry in bridge.json."""
    changes: dict[str, dict[str, Tensor]] = {}
    if any(key.startswith(lora.PEFT_PREFIX) for key in state):
        pairs = lora.lora_pairs_of_state(state)
        changes = {name: {UP: up, DOWN: down} for name, (up, down) in pairs.items()}
    else:
        for key, value in state.items():
            layer, _, factor = key.rpartition(".")
            changes.setdefault(layer, {})[factor] = value
    return FoldedLora(**about, changes=changes)
