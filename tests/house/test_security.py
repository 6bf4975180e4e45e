"""Each promise of docs/security.md names a test, and each of these tests exists."""

import re
from pathlib import Path

import pytest
import transformers.configuration_utils
import transformers.modeling_utils
from diffusers import __version__ as diffusers_version

from lavibridge.core.model_folders import CODE_CHOICES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
PROMISES = [line for line in PAGE.splitlines() if line.startswith("| ") and "`tests/" in line]
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_a_named_test_exists(file: str, name: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\(", text, flags=re.MULTILINE)


def test_every_promise_names_a_test() -> None:
    section = PAGE.split("## What is promised", 1)[1].split("## What is not promised", 1)[0]
    rows = [line for line in section.splitlines() if re.match(r"\| (?!-|promise|key)", line)]
    assert len(rows) > 20
    assert rows == [row for row in rows if "`tests/" in row]


def test_the_page_names_every_key_that_is_left_out() -> None:
    assert all(f"`{key}`" in PAGE for key in CODE_CHOICES)


def test_the_page_names_the_versions_that_were_read() -> None:
    """A new version may read other keys: look for them, then write its number into the page."""
    assert f"Transformers {transformers.__version__} and Diffusers {diffusers_version}" in PAGE
