"""The processes of a run and their communication; the only module that uses Accelerate.

    lavi train RECIPE                                                one process
    accelerate launch --num_processes 8 -m lavibridge train RECIPE   eight, each with its share of every batch
    torchrun --nproc_per_node 8 -m lavibridge train RECIPE           the same, with GPUs or without

A run compares the processes that a launcher started with those that joined: otherwise two processes that do
not know of each other would train into one folder.

Each process computes the losses of its own samples, and DDP averages the gradients of the trained weights, so
that all processes take the same step. Frozen weights are neither sent nor compared: every process reads them
from the same files, which `agree` verifies.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import final

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_device
from lavibridge.core.errors import LaviError, RecipeError, RunError
from lavibridge.core.log import console
from lavibridge.core.process_rank import (
    ProcessRank,
    export_torchrun_variables,
    local_rank,
    rank_from_environment,
)
from lavibridge.core.signals import default_signal_handlers
from lavibridge.recipes.training_section import TrainingSection

_ENDED: list[object] = []
"""Finished process groups, kept until the program ends to avoid a deadlock: a thread of gloo may wait for the
interpreter's lock to free a tensor, while freeing the group holds that lock and waits for the thread."""


@final
class Processes:
    """This process among all of the run."""

    def __init__(self, accelerator: Accelerator, device: torch.device) -> None:
        self.accelerator = accelerator
        self.device = device
        self.index: int = accelerator.process_index
        self.count: int = accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.index == 0

    def wait(self) -> None:
        """Block until every process has reached this line."""
        self.accelerator.wait_for_everyone()

    def wrap(self, bridge: Bridge) -> nn.Module:
        """Wrap the bridge in DDP, which averages gradients over several processes."""
        if self.count > 1:
            frozen = [name for name, weight in bridge.named_parameters() if not weight.requires_grad]
            buffers = [name for name, _ in bridge.named_buffers()]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(bridge, frozen + buffers)
            self.accelerator.ddp_handler = DistributedDataParallelKwargs(
                find_unused_parameters=has_idle_lora(bridge)
            )
        model: nn.Module = self.accelerator.prepare_model(bridge, device_placement=False)
        return model

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Compute the gradients of a loss."""
        self.accelerator.backward(loss)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[object]:
        """Return a context in which a pass does not average its gradients."""
        context: AbstractContextManager[object] = self.accelerator.no_sync(model)
        return context

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the values of all processes; each process must have equally many."""
        gathered: Tensor = self.accelerator.gather(values)
        return gathered

    def average(self, values: list[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in place."""
        if self.count > 1:
            for value in values:
                value.copy_(self.accelerator.reduce(value, reduction="mean"))

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.count == 1:
            return value
        return int(self.gather(torch.tensor([value], device=self.device)).max())

    def any(self, value: bool) -> bool:
        """Whether the value is true in any process."""
        return self.largest(int(value)) > 0

    def by_main(self, act: Callable[[], None]) -> None:
        """Call a function in the main process while the others wait; all fail if it fails."""
        failed: Exception | None = None
        if self.is_main:
            try:
                act()
            except (LaviError, OSError) as error:
                failed = error
        if self.any(failed is not None):
            raise failed or RunError("the main process has failed; see its error")

    def take_from_main(self, weights: list[nn.Parameter]) -> None:
        """Set weights to their values in the main process."""
        for weight in weights:
            weight.data.copy_(broadcast(weight.data))

    def agree(self, what: str, value: str) -> None:
        """Raise RunError if the processes have different values."""
        number = int.from_bytes(hashlib.sha256(value.encode()).digest()[:7], "big")
        if self.any(self.largest(number) != number):
            raise RunError(
                f"the processes of this run have different {what}; process {self.index} found: {value}. "
                "Give every machine the same files"
            )


def has_idle_lora(bridge: Bridge) -> bool:
    """Whether LoRA may be above the layers that the connector reads, where it gets no gradient."""
    language, reading = bridge.language, bridge.connector.reading
    unread = language.unread(reading)
    if unread:
        return any(weight.requires_grad for block in unread for weight in block.parameters())
    # The connector reads the last layer, or the model cannot list its blocks.
    is_all_read = not {-1, language.spec.layers - 1}.isdisjoint(reading.layers)
    return bridge.learns_through_language and not is_all_read


@contextmanager
def begin_processes(settings: TrainingSection) -> Iterator[Processes]:
    """Join the processes that a launcher started; without a launcher, this one only.

    Resets Accelerate's state at the end, because the program's next run may choose another precision. Raises
    RunError if the processes do not find each other.
    """
    part = rank_from_environment()
    export_torchrun_variables(os.environ)
    is_cpu = pick_device(settings.device).type == "cpu"
    _refuse_shared_device(settings.device, part)
    try:
        accelerator = _join(part, "bf16" if settings.precision == "bfloat16" else "no", is_cpu)
        _refuse_plugins(accelerator)
        accelerator.gradient_accumulation_steps = 1  # overrides Accelerate's settings: the loop accumulates
        processes = Processes(accelerator, _own_device(settings.device, accelerator))
        was_quiet, console.quiet = console.quiet, console.quiet or not processes.is_main
        try:
            yield processes
        finally:
            console.quiet = was_quiet
        if processes.count > 1:
            _ENDED.append(torch.distributed.group.WORLD)
        accelerator.end_training()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def _join(part: ProcessRank, precision: str, is_cpu: bool) -> Accelerator:
    """Join the other processes. Raises RunError unless all started processes join."""
    try:
        with default_signal_handlers():  # C++ code waits for the others, and would ignore Python's handlers
            accelerator = Accelerator(mixed_precision=precision, cpu=is_cpu)
    except (torch.distributed.DistError, ValueError) as error:
        raise RunError(f"process {part.rank} of {part.world_size} cannot join the others: {error}") from error
    joined = ProcessRank(rank=accelerator.process_index, world_size=accelerator.num_processes)
    if part.world_size > 1 and joined != part:
        raise RunError(
            f"the launcher started {part.world_size} processes, but process {part.rank} joined a group as "
            f"number {joined.rank} of {joined.world_size}, so each would train by itself. Start them with "
            "torchrun, on NVIDIA GPUs or with training.device=cpu"
        )
    return accelerator


def _refuse_shared_device(name: str, part: ProcessRank) -> None:
    """Raise RecipeError if this process would share its GPU with another."""
    own, there = local_rank() or 0, torch.cuda.device_count()
    if part.world_size > 1 and own >= there > 0 and pick_device(name).type == "cuda":
        raise RecipeError(
            f"this is process {own} on its machine, counted from 0, but torch finds only {there} GPUs: start "
            "one process for each GPU (--nproc_per_node), or check CUDA_VISIBLE_DEVICES"
        )


def _refuse_plugins(accelerator: Accelerator) -> None:
    """Raise RecipeError if Accelerate's configuration shards the model in its own way."""
    kind = accelerator.distributed_type
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise RecipeError(
            f"Accelerate is configured for {kind.value}, which training does not support: configure plain "
            "multi-GPU (`accelerate config`), and set training.sharding=fsdp2 in the recipe"
        )


def _own_device(name: str, accelerator: Accelerator) -> torch.device:
    """The device of this process. Raises RecipeError if several processes would share a named one."""
    if name == "auto" or (name == "cuda" and accelerator.num_processes > 1):
        device: torch.device = accelerator.device
        return device
    found = pick_device(name)
    if accelerator.num_processes > 1 and found.type != "cpu":
        raise RecipeError(
            f"training.device is {name}, but {accelerator.num_processes} processes need one device each: use "
            "auto"
        )
    return found
