"""What strangers wrote reaches the terminal without the characters that it obeys."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from lavibridge.core.log import ResilientConsole
from lavibridge.core.streams import ResultStream, escape_controls

ESCAPES = "\x1b]0;title\x07 \x1b[2J \x9b31m \x08\r \u202egnp"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    shown = escape_controls(text)
    assert not any((ord(sign) < 32 and sign not in "\n\t") or 127 <= ord(sign) < 160 for sign in shown)
    assert escape_controls(shown) == shown


def test_plain_text_of_any_language_stays() -> None:
    text = "ein Häuschen\n\tдом 家 🏠 \u200d"
    assert escape_controls(text) == text


@pytest.mark.parametrize("is_table", [True, False])
def test_messages_show_escapes_as_numbers(is_table: bool) -> None:
    stream = Terminal()
    console = ResilientConsole(file=stream, force_terminal=True, width=200, markup=False, highlight=False)
    table = Table()
    table.add_column(ESCAPES)
    console.print(table if is_table else ESCAPES)
    shown = stream.getvalue()
    assert "\\x1b]0;title" in shown
    assert is_table or "\\u202e" in shown
    assert not [sign for sign in ("\x1b]", "\x1b[2J", "\x9b", "\x08", "\u202e") if sign in shown]


def test_results_are_escaped_on_a_terminal_and_whole_in_a_pipe() -> None:
    for stream, expected in ((Terminal(), escape_controls(ESCAPES)), (io.StringIO(), ESCAPES)):
        print(ESCAPES, file=ResultStream(stream), end="")
        assert stream.getvalue() == expected
