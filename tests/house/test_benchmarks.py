"""The table of ratios: the newest beside those before, and an error where one has fallen."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import table


def write(folder: Path, commit: str, time: str, ratio: float) -> None:
    median = {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1, "n": 3}
    result = {"commit": commit, "time": time, "processor time": {"times faster": {"fast": median}}}
    path = folder / f"draw-world_{table.machine()['name']}_{commit}.json"
    path.write_text(json.dumps(result), encoding="utf-8")


@pytest.mark.parametrize(("ratio", "code"), [(7.5, 0), (6.5, 0), (6.2, 1)])
def test_a_ratio_that_has_fallen_by_a_tenth_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ratio: float,
    code: int,
) -> None:
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    write(tmp_path, "older", "2026-01-01T00:00:00+00:00", 9.0)
    write(tmp_path, "old", "2026-01-02T00:00:00+00:00", 7.0)
    write(tmp_path, "new", "2026-01-03T00:00:00+00:00", ratio)
    assert table.main() == code
    said = capsys.readouterr()
    assert (
        f"| {ratio:.2f} | {ratio - 0.1:.2f} to {ratio + 0.1:.2f}, n 3 | {ratio / 7 - 1:+.0%} (new) |"
        in said.out
    )
    assert "not measured" in said.out
    assert ("7.00 before" in said.err) == bool(code)


def test_every_ratio_of_the_table_is_in_a_committed_result() -> None:
    files = [json.loads(file.read_text(encoding="utf-8")) for file in table.RESULTS.glob("*.json")]
    for ratio in table.RATIOS:
        assert any(
            table.figure(each, ratio.path) for each in files if each.get("benchmark") == ratio.benchmark
        )
