"""A folder has one writer: another is told who; a crash, a fork or a part leaves nobody locked out."""

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lavibridge.core.errors import RunError
from lavibridge.core.lock import hold_file_lock, hold_lock, is_lock_file
from lavibridge.core.process_rank import ProcessRank

HOLDER = """
import os, sys, time
from pathlib import Path
from lavibridge.core.process_rank import ProcessRank
from lavibridge.core.lock import hold_lock
rank, of = map(int, sys.argv[2:4])
with hold_lock(Path(sys.argv[1]), ProcessRank(rank=rank, world_size=of)):
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


class Holders:
    """Processes that hold folders until they are let go."""

    def __init__(self) -> None:
        self.begun: list[subprocess.Popen[str]] = []

    def hold(self, folder: Path, rank: int = 0, of: int = 1, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(folder), str(rank), str(of), *more]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.begun.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        return child

    def close(self) -> None:
        for child in self.begun:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            with child:
                pass


@pytest.fixture
def holders() -> Iterator[Holders]:
    made = Holders()
    yield made
    made.close()


def test_the_second_is_told_who_the_first_is_and_comes_after_it(holders: Holders, tmp_path: Path) -> None:
    first = holders.hold(tmp_path / "run")
    with pytest.raises(RunError) as refused, hold_lock(tmp_path / "run"):
        pass
    said = str(refused.value)
    assert f"process {first.pid} on {platform.node()} has been writing to it since 20" in said
    assert f"(-c {tmp_path / 'run'} 0 1)" in said
    first.communicate("")
    with hold_lock(tmp_path / "run"):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir()), "an empty folder is not left behind"


def test_a_link_to_a_folder_is_that_folder(holders: Holders, tmp_path: Path) -> None:
    holders.hold(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(RunError, match="in use"), hold_lock(tmp_path / "link"):
        pass


def test_who_is_killed_holds_nothing_though_its_child_lives_on(holders: Holders, tmp_path: Path) -> None:
    first = holders.hold(tmp_path / "run", 0, 1, "fork")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert is_lock_file(tmp_path / "run/.lock")
    assert (tmp_path / "run/.lock").is_file()
    with hold_lock(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run/.lock").read_text()


def test_parts_stand_beside_each_other_and_nobody_else_does(holders: Holders, tmp_path: Path) -> None:
    first, second = (holders.hold(tmp_path, rank, 3) for rank in (0, 1))
    with pytest.raises(RunError, match=f"process {first.pid} "), hold_lock(tmp_path):
        pass
    with (
        pytest.raises(RunError, match=f"process {second.pid} "),
        hold_lock(tmp_path, ProcessRank(rank=1, world_size=3)),
    ):
        pass
    with hold_lock(tmp_path, ProcessRank(rank=2, world_size=3)):
        pass
    first.communicate("")
    second.communicate("")
    alone = holders.hold(tmp_path)
    with (
        pytest.raises(RunError, match=f"process {alone.pid} "),
        hold_lock(tmp_path, ProcessRank(rank=2, world_size=3)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_a_thread_holds_it_may_hold_again_and_another_may_not(tmp_path: Path) -> None:
    found: list[str] = []

    def other() -> None:
        try:
            with hold_lock(tmp_path):
                found.append("held")
        except RunError as error:
            found.append(str(error))

    with hold_lock(tmp_path):
        with hold_lock(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} " in found[0]


def test_a_folder_that_is_waited_for_comes_free(
    holders: Holders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = holders.hold(tmp_path)
    assert first.stdin is not None
    threading.Timer(0.8, first.stdin.close).start()
    with hold_lock(tmp_path, waits="it is being checked"):
        assert first.stdin.closed
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"it is being checked (process {first.pid} on ")
    assert said.endswith("waiting for it")


def test_a_file_has_one_writer_too_and_no_folder_can_be_one(tmp_path: Path) -> None:
    with hold_file_lock(tmp_path / "long.txt"):
        assert [path.name for path in tmp_path.iterdir()] == [".long.txt.lock"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"), hold_lock(tmp_path / "file"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
