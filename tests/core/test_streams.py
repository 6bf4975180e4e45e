"""Messages never end work; results that cannot be written are told, unless it is that their reader left."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import pytest

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.log import JsonLog, ResilientConsole
from lavibridge.core.streams import READER_LEFT, MessageStream, ResultStream

FULL = Path("/dev/full")
SIGNS = "né\udcff→\n"
"""Two signs that ASCII lacks, and a byte of a name that was no UTF-8 between them."""


@contextmanager
def ruined(how: str) -> Iterator[TextIO]:
    """A stream that cannot be written to."""
    if how == "full" and not FULL.exists():
        pytest.skip("there is no /dev/full here")
    reader, writer = os.pipe()
    os.close(reader)
    target = FULL if how == "full" else os.dup(writer)
    stream = open(target, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - it fails to close
    os.close(writer)
    if how == "closed":
        stream.close()
    yield stream
    with suppress(OSError):
        stream.close()


@pytest.mark.parametrize("how", ["broken", "closed", "full"])
def test_a_message_that_cannot_be_written_is_nobody_s_matter(how: str) -> None:
    with ruined(how) as stream:
        messages = MessageStream(stream)
        for _ in range(3):
            messages.write("step 8 of 24\n")
            messages.flush()
        console = ResilientConsole(file=stream, highlight=False)
        console.print("step 8 of 24")
        assert not console.quiet


def test_a_sign_that_a_stream_has_not_is_a_number_and_a_byte_stays_a_byte() -> None:
    for kind in (MessageStream, ResultStream):
        raw = io.BytesIO()
        stream = kind(io.TextIOWrapper(raw, encoding="ascii", line_buffering=True))
        stream.write("a ")
        stream.write(SIGNS)
        stream.write("b\n")
        stream.flush()
        assert raw.getvalue() == b"a n\\xe9\xff\\u2192\nb\n"


def test_results_say_why_they_cannot_be_written() -> None:
    with ruined("broken") as stream:
        results = ResultStream(stream)
        with pytest.raises(SystemExit) as left:
            results.write("a result\n")
        assert left.value.code == READER_LEFT
        results.flush()  # at the program's end nothing is left to fail
    with ruined("full") as stream:
        results = ResultStream(stream)
        with pytest.raises(LaviError, match="cannot be written to stdout: No space left on device"):
            results.write("a result\n")
        results.flush()


def test_a_log_is_no_message(tmp_path: Path) -> None:
    if not FULL.exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "log.jsonl").symlink_to(FULL)
    log = JsonLog(tmp_path / "log.jsonl")
    with pytest.raises(RunError, match=r"log\.jsonl cannot be written: No space left"):
        log.write({"step": 1})
    with pytest.raises(RunError, match=r"log\.jsonl cannot be written"):
        log.close()


def lavi(shell: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """A command line of the shell's, with `lavi` in it; PIPESTATUS is its exit code."""
    command = shell.replace("lavi", f"{sys.executable} -m lavibridge")
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("lavi world draw --count 400 | head -1; exit ${PIPESTATUS[0]}", 141, b""),
        ("lavi world draw --count 2 > /dev/full", 1, b"error: the results cannot be written to stdout"),
        ("lavi world draw --count 2 >&-", 0, b""),
        ("lavi world draw --count 2 2>&-", 0, b""),
        ("lavi world draw --out nowhere/\xe9 --count 1", 0, b""),
        ("lavi world draw --category nonsense 2>&-", 1, b""),
        ("lavi world draw --category nonsense 2> /dev/full", 1, b""),
    ],
)
def test_the_command_line_ends_as_it_should(tmp_path: Path, shell: str, code: int, said: bytes) -> None:
    done = lavi(f"export PYTHONIOENCODING=ascii; {shell}", tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert bool(done.stderr) == bool(said)
    if "nowhere" in shell:
        assert done.stdout.startswith(b"nowhere/\\xe9/00000.png\t")
