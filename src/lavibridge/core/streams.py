"""What a program says and what it finds: only a result that cannot be written ends work.

    stderr    messages: whoever read them may have left, its disk may be full, its terminal gone; work goes on
    stdout    results: a reader that has left ends the program in silence (141, as by SIGPIPE), any other
              failure is an error

A sign that a console cannot show is written as its number.
"""

import io
import os
import sys
from contextlib import suppress
from typing import Any, final

from lavibridge.core.errors import LaviError

READER_LEFT = 141
"""What a shell reports of a program that SIGPIPE has ended."""


@final
class MessageStream:
    """A stream for messages; writing to it never fails."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(
            OSError, ValueError, RuntimeError
        ):  # gone, closed, or busy in the frame that a signal cut
            _put(self.stream, text)
        return len(text)

    def flush(self) -> None:
        """Bring it to its reader, if there is one."""
        with suppress(OSError, ValueError, RuntimeError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@final
class ResultStream:
    """A stream for results; SystemExit where the reader has left, LaviError where they cannot be written."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a part of the result."""
        try:
            _put(self.stream, text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Bring it to its reader."""
        try:
            self.stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Nothing is written from now on, at the program's end either."""
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(READER_LEFT) from None
        raise LaviError(f"what was found cannot be written to stdout: {error.strerror or error}") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_streams() -> None:
    """Have this program's stdout and stderr be such streams; those that were closed lead nowhere."""
    for descriptor in range(3):  # else the next file that is opened would take the place of one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the program
    sys.stdout = ResultStream(sys.stdout or nowhere)
    sys.stderr = MessageStream(sys.stderr or nowhere)


def _put(stream: Any, text: str) -> None:
    """Write a text; a sign that the encoding lacks by its number, bytes that were no text as they came."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        raw = b"".join(_encoded(sign, encoding) for sign in text)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            stream.buffer.write(raw)
            stream.flush()
        else:
            stream.write(raw.decode(encoding, "replace"))


def _encoded(sign: str, encoding: str) -> bytes:
    try:
        return sign.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return sign.encode(encoding, "backslashreplace")
