"""The blocks of a transformer, run only as far as the highest layer that is read.

    layer 0 (embeddings) --block 0--> layer 1 --block 1--> ... --block L-1--> layer L --final norm--> output

To read layers 3 and 10, blocks 0 to 9 run: the time is that of 10 blocks, not of all L. The list of blocks in
the backbone becomes a `BlockStack`, which is an ordinary list of modules unless layers are being recorded. No
module is moved or changed for a reading, so two threads can read different layers of one model.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class LayerRecord:
    """The layers to record in one call of a backbone, how many blocks run, and the recorded layers."""

    layers: Collection[int]
    depth: int
    hidden: dict[int, Tensor] = field(default_factory=dict)

    def keep(self, layer: int, hidden: Tensor) -> None:
        """Record a layer if it is among those to record."""
        if layer in self.layers:
            self.hidden[layer] = hidden


_record: ContextVar[LayerRecord | None] = ContextVar("layer record", default=None)


@contextmanager
def record_layers(layers: Collection[int], depth: int) -> Iterator[dict[int, Tensor]]:
    """Record the hidden states of ``layers`` (0 to ``depth``) in the call of a backbone within this context.

    Only the first ``depth`` blocks run, and at least one, whose input is layer 0. Layer ``depth`` is the
    output of the last of these blocks, before any final norm.
    """
    record = LayerRecord(layers, max(1, depth))
    token = _record.set(record)
    try:
        yield record.hidden
    finally:
        _record.reset(token)


class BlockStack(nn.ModuleList):
    """A list of blocks. While layers are recorded, it yields only the blocks that run, each recording."""

    def __iter__(self) -> Iterator[Any]:
        record = _record.get()
        blocks: Iterator[Any] = super().__iter__()
        if record is None:
            return blocks
        return (
            _RecordedBlock(block, layer, record) for layer, block in enumerate(islice(blocks, record.depth))
        )


class _RecordedBlock:
    """A block that records its input and output when called; everything else is the block's own."""

    def __init__(self, block: nn.Module, layer: int, record: LayerRecord) -> None:
        self.block, self.layer, self.record = block, layer, record

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.record.keep(self.layer, args[0] if args else options["hidden_states"])
        output = self.block(*args, **options)
        self.record.keep(self.layer + 1, output[0] if isinstance(output, tuple) else output)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)


def stack_blocks(backbone: nn.Module, blocks: list[nn.Module]) -> bool:
    """Replace the list that holds exactly ``blocks`` by a `BlockStack`; returns whether there is one."""
    if not blocks:
        return False
    for parent in backbone.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and list(child) == blocks:
                setattr(parent, name, BlockStack(blocks))
                return True
    return False
