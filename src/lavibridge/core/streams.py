"""Wraps stdout and stderr: only a result that cannot be written ends the program.

    stderr    messages: the reader may have left, the disk may be full, the terminal gone; work continues
    stdout    results: if the reader has left, the program ends silently (141, as after SIGPIPE); any other
              failure is an error

Characters that a console cannot show appear as their number, and so do the control characters of names and
prompts that others wrote: a terminal obeys them.
"""

import io
import os
import re
import sys
from contextlib import suppress
from typing import Any, final

from lavibridge.core.errors import LaviError

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that turn the direction of a line."""
READER_LEFT = 141
"""The exit code that a shell reports after SIGPIPE."""


def escape_controls(text: str) -> str:
    """Return a text with its control characters as their numbers, such as ``\\x1b``; lines and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


@final
class MessageStream:
    """A stream for messages; writing to it never fails."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write as much as possible."""
        with suppress(
            OSError, ValueError, RuntimeError
        ):  # gone, closed, or busy in the frame that a signal interrupted
            _put(self.stream, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if it still has a reader."""
        with suppress(OSError, ValueError, RuntimeError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@final
class ResultStream:
    """A stream for results. Raises SystemExit if the reader has left, and LaviError if the results cannot be
    written."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a part of the result, on a terminal without control characters."""
        try:
            _put(self.stream, escape_controls(text) if self.stream.isatty() else text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self.stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Stop writing for good, also at the program's end."""
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(READER_LEFT) from None
        raise LaviError(f"the results cannot be written to stdout: {error.strerror or error}") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_streams() -> None:
    """Wrap this program's stdout and stderr; closed ones become the null device."""
    for descriptor in range(3):  # otherwise the next opened file would take its place
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the program
    sys.stdout = ResultStream(sys.stdout or nowhere)
    sys.stderr = MessageStream(sys.stderr or nowhere)


def _put(stream: Any, text: str) -> None:
    """Write a text; unencodable characters as their number, undecodable bytes unchanged."""
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
