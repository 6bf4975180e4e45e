"""The table of ratios: the newest beside those before, and an error where one has fallen."""

import json
import os
from pathlib import Path

import pytest
import table
from spread import across, fresh, interval


def write(folder: Path, commit: str, time: str, processes: list[float], is_of_processes: bool = True) -> None:
    ratio = across(processes) if is_of_processes else interval(processes)
    result = {"commit": commit, "time": time, "processor time": {"times faster": {"fast": ratio}}}
    path = folder / f"draw-world_{table.machine()['name']}_{commit}.json"
    path.write_text(json.dumps(result), encoding="utf-8")


@pytest.mark.parametrize(
    ("processes", "said", "code"),
    [
        ([7.4, 7.5, 7.6], "| 7.50 | 7.40 to 7.60, n 3 | +7% (new) |", 0),
        ([6.4, 6.5, 6.6], "| 6.50 | 6.40 to 6.60, n 3 | -7% (new) |", 0),
        ([5.9, 6.0, 6.95], "| 6.00 | 5.90 to 6.95, n 3 | -14% (new) |", 0),
        ([5.9, 6.0, 6.1], "| 6.00 | 5.90 to 6.10, n 3 | -14% (new) |", 1),
    ],
)
def test_a_fall_by_a_tenth_beyond_the_spread_of_processes_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    processes: list[float],
    said: str,
    code: int,
) -> None:
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    write(tmp_path, "older", "2026-01-01T00:00:00+00:00", [9.0, 9.0, 9.0])
    write(tmp_path, "old", "2026-01-02T00:00:00+00:00", [6.9, 7.0, 7.1])
    write(tmp_path, "rounds", "2026-01-03T00:00:00+00:00", [8.0, 8.0, 8.0], is_of_processes=False)
    write(tmp_path, "new", "2026-01-04T00:00:00+00:00", processes)
    assert table.main() == code
    printed = capsys.readouterr()
    assert said in printed.out
    assert "not measured" in printed.out
    assert ("7.00 before" in printed.err) == bool(code)


def test_results_of_processes_become_one_with_intervals() -> None:
    found = across([{"way": {"seconds": each}, "same": True, "name": "a"} for each in (3.0, 1.0, 2.0)])
    assert (found["same"], found["name"]) == (True, "a")
    assert found["way"]["seconds"] == {
        "median": 2.0,
        "low": 1.0,
        "high": 3.0,
        "n": 3,
        "processes": [3.0, 1.0, 2.0],
    }
    assert across([True, False]) == [True, False]


def test_a_measurement_has_a_process_of_its_own() -> None:
    assert fresh(os.getpid) != os.getpid()


def test_every_ratio_of_the_table_is_in_a_committed_result() -> None:
    files = [json.loads(file.read_text(encoding="utf-8")) for file in table.RESULTS.glob("*.json")]
    for ratio in table.RATIOS:
        assert any(
            table.figure(each, ratio.path) for each in files if each.get("benchmark") == ratio.benchmark
        )
