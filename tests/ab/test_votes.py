"""Files of votes: nothing is lost without a word, and nothing of another study is counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavibridge.ab.key import AbKey, read_ab_key
from lavibridge.ab.votes import read_votes
from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.files import write_json


def vote(**changes: Any) -> dict[str, Any]:
    return {
        "study": "0123",
        "form": 1,
        "rater": "anna",
        "session": "s1",
        "item": "aa",
        "question": "follows",
        "choice": "first",
        "left": "second",
        "ms": 2100,
        "at": "2026-01-01T10:00:00.000Z",
        **changes,
    }


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_choices_become_runs(key: AbKey, tmp_path: Path) -> None:
    lines = [vote(), vote(item="bb"), vote(question="looks", choice="tie"), vote(item="bb", rater="ben")]
    read = read_votes(key, [write(tmp_path / "v.jsonl", *lines)])
    assert [(cast.rater, cast.question, cast.winner) for cast in read.votes] == [
        ("anna", "follows", 0),
        ("anna", "follows", 1),
        ("anna", "looks", None),
        ("ben", "follows", 1),
    ]
    assert (read.rejected, read.replaced) == ((), 0)


def test_lines_that_are_no_votes_are_named_and_counted(key: AbKey, tmp_path: Path) -> None:
    wrong = {
        '{"study": "0123", "fo': "Invalid JSON",
        "[1, 2]": "should be an object",
        json.dumps(vote(choice="left")): "choice: Input should be 'first', 'second' or 'tie'",
        json.dumps(vote(ms=-1)): "ms: ",
        json.dumps(vote(rater="")): "rater: ",
        json.dumps(vote(colour="red")): "colour: Extra inputs",
        json.dumps(vote(item="zz")): "no comparison 'zz'",
        json.dumps(vote(question="why")): "a question 'why'",
        json.dumps(vote(form=2)): "the format is 2",
    }
    path = write(tmp_path / "v.jsonl", vote(), "", *wrong)
    read = read_votes(key, [path])
    assert len(read.votes) == 1
    assert [each.line for each in read.rejected] == list(range(3, 3 + len(wrong)))
    for each, said in zip(read.rejected, wrong.values(), strict=True):
        assert said in each.reason
        assert each.file == str(path)
    with pytest.raises(RunError, match=r"no valid vote in .*only\.jsonl \(.*line 1: Invalid JSON"):
        read_votes(key, [write(tmp_path / "only.jsonl", "no vote")])
    with pytest.raises(RunError, match="no valid vote in"):
        read_votes(key, [write(tmp_path / "empty.jsonl")])


def test_votes_of_another_study_are_refused(key: AbKey, tmp_path: Path) -> None:
    path = write(tmp_path / "v.jsonl", vote(), vote(study="beef", item="zz"))
    with pytest.raises(RunError, match=r"v\.jsonl: line 2 is a vote in study beef, and the key is of 0123"):
        read_votes(key, [path])


def test_a_file_fetched_twice_counts_once_with_the_later_answer(key: AbKey, tmp_path: Path) -> None:
    late = write(
        tmp_path / "late.jsonl", vote(choice="second", at="2026-01-01T10:05:00.000Z"), vote(item="bb")
    )
    early = write(tmp_path / "early.jsonl", vote())
    for order in ([early, late], [late, early], [late, early, late]):
        read = read_votes(key, order)
        assert sorted((cast.item.item, cast.vote.choice) for cast in read.votes) == [
            ("aa", "second"),
            ("bb", "first"),
        ]
        assert read.replaced == 1


def test_two_people_of_one_name_are_not_made_one(key: AbKey, tmp_path: Path) -> None:
    first, second = write(tmp_path / "1.jsonl", vote()), write(tmp_path / "2.jsonl", vote(session="s2"))
    with pytest.raises(
        RunError, match=r"'anna' answers the same question in two sessions \(.*1\.jsonl and .*2"
    ):
        read_votes(key, [first, second])


def test_files_of_other_editors_are_read_and_no_text_is_an_error(key: AbKey, tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(vote()).encode() + b"\r\n\r\n")
    assert len(read_votes(key, [path]).votes) == 1
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="not UTF-8 text"):
        read_votes(key, [path])


def test_what_is_no_key_is_refused(key: AbKey, tmp_path: Path) -> None:
    path = tmp_path / "ab.key.json"
    good = key.model_dump(mode="json")
    write_json(path, good)
    assert read_ab_key(path) == key
    item = good["items"][0]
    for found, said in (
        ([], "is not the key of a study"),
        ({**good, "form": 9}, "has format 9"),
        ({**good, "colour": 1}, "unknown key"),
        ({**good, "items": [{**item, "second": 7}]}, "names a run or comparison that does not exist"),
        ({**good, "items": [{**item, "repeat_of": "zz"}]}, "names a run or comparison that does not exist"),
    ):
        write_json(path, found)
        with pytest.raises(RunError, match=said):
            read_ab_key(path)
    path.write_text("{")
    with pytest.raises(LaviError, match="not valid JSON"):
        read_ab_key(path)
