"""A device that takes no more bytes ends in one line."""

from contextlib import suppress
from pathlib import Path

import pytest

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.files import parse_json, read_json
from lavibridge.core.log import JsonLog
from lavibridge.core.yaml_text import parse_yaml

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_in_one_line_and_keeps_what_is_written(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    log.write({"step": 1})
    log.close()
    (tmp_path / "full.jsonl").symlink_to(FULL)
    full = JsonLog(tmp_path / "full.jsonl")
    with pytest.raises(RunError, match=r"full\.jsonl cannot be written: No space left"):
        full.write({"step": 2})
    assert read_json(tmp_path / "log.jsonl") == {"step": 1}
    with suppress(RunError):
        full.close()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, "NaN}", '"\\ud800'])
def test_json_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(LaviError, match=r"^here is not valid JSON: ") as refused:
        parse_json(text, "here")
    assert "\n" not in str(refused.value)
    (tmp_path / "a.json").mkdir()
    with pytest.raises(LaviError, match=r"a\.json cannot be read"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["? [a, b]\n: 1", "? {a: 1}\n: 1", "&a [*a]", "&a {b: *a}"])
def test_yaml_with_odd_keys_and_recursive_anchors_is_refused(text: str) -> None:
    with pytest.raises(LaviError, match=r"^here is not valid YAML: ") as refused:
        parse_yaml(text, "here")
    assert "\n" not in str(refused.value)
