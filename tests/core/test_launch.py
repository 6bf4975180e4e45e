"""Whoever starts processes, each knows which it is; what cannot be shared or joined is refused."""

import subprocess
import sys

import pytest

from lavibridge.core.errors import RunError
from lavibridge.core.process_rank import (
    SINGLE_PROCESS,
    ProcessRank,
    export_torchrun_variables,
    rank_from_environment,
)

MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, SINGLE_PROCESS),
        ({"RANK": "0"}, SINGLE_PROCESS),
        ({"WORLD_SIZE": "1"}, SINGLE_PROCESS),
        ({"RANK": "1", "WORLD_SIZE": "2"}, ProcessRank(rank=1, world_size=2)),
        (MPI, ProcessRank(rank=1, world_size=2)),
        ({"MV2_COMM_WORLD_RANK": "2", "MV2_COMM_WORLD_SIZE": "4"}, ProcessRank(rank=2, world_size=4)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, ProcessRank(rank=3, world_size=4)),
        (STEP, ProcessRank(rank=1, world_size=2)),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
            SINGLE_PROCESS,
        ),  # a batch script of eight cores, and no srun
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "8"}, ProcessRank(rank=1, world_size=8)),
        (
            {**STEP, "RANK": "5", "WORLD_SIZE": "16"},
            ProcessRank(rank=5, world_size=16),
        ),  # torchrun, started by srun
    ],
)
def test_every_launcher_says_which_process_this_is(environment: dict[str, str], part: ProcessRank) -> None:
    assert rank_from_environment(environment) == part


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"RANK": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "a", "WORLD_SIZE": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
    ],
)
def test_what_names_no_part_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(RunError, match="are inconsistent"):
        rank_from_environment(environment)


def test_the_libraries_are_told_in_their_words_and_where_to_meet() -> None:
    told = dict(MPI)
    export_torchrun_variables(told)
    assert (told["RANK"], told["WORLD_SIZE"], told["MASTER_ADDR"]) == ("1", "2", "127.0.0.1")
    told = {**STEP, "SLURM_STEP_NUM_NODES": "1"}
    export_torchrun_variables(told)
    assert (told["RANK"], told["LOCAL_RANK"], told["MASTER_PORT"]) == ("1", "1", "29500")
    for far in ({**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, STEP, {"RANK": "0", "WORLD_SIZE": "2"}):
        with pytest.raises(RunError, match="does not know where to meet"):
            export_torchrun_variables(dict(far))
        met = {**far, "MASTER_ADDR": "node1", "MASTER_PORT": "1234"}
        export_torchrun_variables(met)
        assert (met["MASTER_ADDR"], met["MASTER_PORT"]) == ("node1", "1234")


@pytest.mark.parametrize(
    ("verb", "code"),
    [(("generate", "run", "a"), 1), (("world", "draw"), 1), (("world", "draw", "--help"), 0)],
)
def test_work_for_one_process_is_refused_by_several(verb: tuple[str, ...], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lavibridge", *verb],
        env={"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.startswith(f"error: `lavi {verb[0]}` runs in one process")
        assert not done.stdout
