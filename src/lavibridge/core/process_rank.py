"""Reads a process's rank from the environment variables that launchers set.

    torchrun, accelerate      RANK              WORLD_SIZE            LOCAL_RANK      LOCAL_WORLD_SIZE
    mpirun of Open MPI        OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
    mpirun of MVAPICH         MV2_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
    mpirun of MPICH, Intel    PMI_RANK          PMI_SIZE              MPI_LOCALRANKID MPI_LOCALNRANKS
    srun of SLURM             SLURM_PROCID      SLURM_STEP_NUM_TASKS  SLURM_LOCALID

The first launcher with a world size counts, because srun or mpirun may start torchrun once per machine.
"""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from lavibridge.core.errors import RunError

_NAMES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *(
        tuple(f"{mpi}_COMM_WORLD_{what}" for what in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))
        for mpi in ("OMPI", "MV2")
    ),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""),
)
"""Rank, world size, local rank, local world size; a SLURM batch script has no step of its own."""
_LOCALHOST, _PORT = "127.0.0.1", "29500"
"""Where processes of one machine connect, unless MASTER_ADDR and MASTER_PORT are set."""


@dataclass(frozen=True, kw_only=True)
class ProcessRank:
    """The rank of this process and the world size; of shared work, it takes every `world_size`-th piece from
    `rank`."""

    rank: int = 0
    world_size: int = 1


SINGLE_PROCESS = ProcessRank()


def rank_from_environment(environment: Mapping[str, str] | None = None) -> ProcessRank:
    """Return the rank from a launcher's variables, or the single process without any.

    Raises RunError if the variables are inconsistent.
    """
    found = os.environ if environment is None else environment
    rank_name, size_name, *_ = _names(found)
    of, rank = found.get(size_name, "1"), found.get(rank_name, "")
    if rank == "" and of == "1":
        return SINGLE_PROCESS
    if not (rank.isdigit() and of.isdigit() and int(rank) < int(of)):
        raise RunError(
            f"{rank_name}={rank} and {size_name}={of} are inconsistent: {rank_name} must be from 0 to "
            f"{size_name} - 1. Start the processes with torchrun, or unset both"
        )
    return ProcessRank(rank=int(rank), world_size=int(of))


def require_single_process(what: str) -> None:
    """Raise RunError if a launcher started several processes for work that only one can do."""
    part = rank_from_environment()
    if part.world_size > 1:
        raise RunError(
            f"{what} runs in one process, but the launcher started {part.world_size}: run it without a "
            "launcher (only train, cache, evaluate and a single cell of a study split their work)"
        )


def local_rank() -> int | None:
    """Return the rank of this process on its machine, or None if no launcher states it."""
    own = os.environ.get(_names(os.environ)[2], "")
    return int(own) if own.isdigit() else None


def export_torchrun_variables(environment: MutableMapping[str, str]) -> None:
    """Copy another launcher's variables to torchrun's, which the libraries read.

    Raises RunError if the processes cannot find each other.
    """
    part = rank_from_environment(environment)
    if part.world_size == 1:
        return
    names = _names(environment)
    for own, theirs in zip(_NAMES[0], names, strict=True):
        if theirs in environment:
            environment[own] = environment[theirs]
    environment["RANK"], environment["WORLD_SIZE"] = str(part.rank), str(part.world_size)
    is_one_machine = (
        environment.get("LOCAL_WORLD_SIZE") == str(part.world_size)
        or environment.get("SLURM_STEP_NUM_NODES") == "1"
    )
    if not is_one_machine and "MASTER_ADDR" not in environment:
        raise RunError(
            f"this is process {part.rank} of {part.world_size} ({names[1]}), but it does not know where to "
            "meet the others: start them with torchrun, or set MASTER_ADDR to the first machine and "
            "MASTER_PORT to a free port on it"
        )
    environment.setdefault("MASTER_ADDR", _LOCALHOST)
    environment.setdefault("MASTER_PORT", _PORT)


def _names(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variable names of the launcher that started this process."""
    for names in _NAMES:
        if names[1] in environment:
            return names
    if environment.get("SLURM_PROCID", "0") != "0" and "SLURM_NTASKS" in environment:
        return ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "")
    return _NAMES[0]
