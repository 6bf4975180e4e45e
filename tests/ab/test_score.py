"""The whole path without a browser: a study, votes of the checker and of people, and the score."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lavibridge.ab.build import build_ab_study
from lavibridge.ab.key import AbKey, read_ab_key
from lavibridge.ab.metric_votes import metric_votes
from lavibridge.ab.score import score_ab_votes
from lavibridge.ab.votes import Vote, VoteSet, read_votes
from lavibridge.cli.main import app
from lavibridge.core.errors import RunError
from lavibridge.evaluation.stats import wilson_interval

Study = tuple[AbKey, Path]


@pytest.fixture(scope="module")
def study(runs: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three runs, each pair on each of 16 prompts."""
    out = tmp_path_factory.mktemp("study") / "ab.html"
    _, key = build_ab_study(runs, "world", out, per_prompt=3, repeats=6, seed=1)
    return read_ab_key(key), key


def people(key: AbKey, count: int, slips: float) -> Iterator[Vote]:
    """Raters who see what the checker sees, but for some slips."""
    rng = np.random.default_rng(0)
    for rater in range(count):
        for vote in metric_votes(key, "world", "follows"):
            choice = str(rng.choice(["first", "second", "tie"])) if rng.random() < slips else vote.choice
            about = {"rater": f"rater {rater}", "metric": None, "left": "first", "ms": 3000, "choice": choice}
            yield Vote.model_validate({**vote.model_dump(), **about})


def write(path: Path, votes: Iterator[Vote]) -> Path:
    path.write_text("".join(f"{vote.model_dump_json()}\n" for vote in votes), encoding="utf-8")
    return path


def test_people_and_checker_agree_on_which_run_is_best(study: Study, tmp_path: Path) -> None:
    key, path = study
    runner = CliRunner()
    printed = runner.invoke(app, ["ab", "vote", str(path)]).stdout
    checker = tmp_path / "votes-checker.jsonl"
    checker.write_text(printed, encoding="utf-8")
    voted = write(tmp_path / "votes-people.jsonl", people(key, 3, 0.3))
    voted.write_text(voted.read_text() + "not a vote\n")
    out = tmp_path / "scores.json"
    done = runner.invoke(app, ["ab", "score", str(path), str(voted), str(checker), "--json", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found == score_ab_votes(key, read_votes(key, [voted, checker]))
    assert "votes-people.jsonl, line 163: Invalid JSON" in done.stderr
    assert "rejected 1 lines" in done.stderr
    assert f"{3 * 48} votes by 3 people on 48 comparisons, and 18 on repeats" in done.stdout
    assert "the metric world agrees with the people in" in done.stdout
    assert (found["votes"], found["votes_on_repeats"], found["of_people"]) == (144, 18, True)
    assert found["retest"]["n"] == 18
    follows = found["questions"]["follows"]
    assert follows["raters"] == 3
    points = [follows["strengths"]["points"][name] for name in found["runs"]]
    assert points[0]["low"] > points[2]["high"]
    assert sum(each["mean"] for each in points) == pytest.approx(0, abs=1e-9)
    assert follows["metrics"]["world"]["mean"] > 0.7
    assert 0.2 < follows["agreement"]["fleiss_kappa"]["mean"] < 0.8
    assert follows["agreement"]["fleiss_kappa"]["n"] == 48
    best = follows["pairs"][1]
    assert (best["run"], best["other"], best["n"]) == ("zebra-good", "walrus-poor", 48)
    assert best["p_prompts"] < 0.01
    assert best["preference"]["low"] > 0.5
    assert set(best["categories"]) == {"one", "two"}
    assert sum(each["n"] for each in best["categories"].values()) == 48


def test_votes_of_a_metric_alone_are_scored_and_said_to_be_so(study: Study, tmp_path: Path) -> None:
    key, path = study
    voted = write(tmp_path / "v.jsonl", metric_votes(key, "world", "follows"))
    done = CliRunner().invoke(app, ["ab", "score", str(path), str(voted)])
    assert "48 votes by 1 metric on 48 comparisons" in done.stdout
    assert "no comparison has two raters" in done.stdout
    assert "same answer to repeats: 100%" in done.stdout
    for item in key.items:
        first, second = item.scores["world"]
        assert {first, second} <= {0.0, 1.0}


def test_the_order_of_runs_changes_signs_alone(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same votes, read with a key that names the runs the other way round."""
    key, _ = study
    last = len(key.runs) - 1
    items = [
        item.model_copy(update={"first": last - item.first, "second": last - item.second})
        for item in key.items
    ]
    other = key.model_copy(update={"runs": key.runs[::-1], "items": tuple(items)})
    voted = write(tmp_path / "v.jsonl", people(key, 3, 0.3))
    monkeypatch.setattr("lavibridge.ab.score.DRAWS", 50)
    found, turned = (score_ab_votes(each, read_votes(each, [voted])) for each in (key, other))
    ours, theirs = found["questions"]["follows"], turned["questions"]["follows"]
    assert theirs["agreement"] == ours["agreement"]
    assert turned["raters"] == found["raters"]
    assert turned["retest"] == found["retest"]
    for name in found["runs"]:
        assert theirs["strengths"]["points"][name] == pytest.approx(ours["strengths"]["points"][name])
    pairs = {(pair["other"], pair["run"]): pair for pair in theirs["pairs"]}
    for pair in ours["pairs"]:
        back = pairs[pair["run"], pair["other"]]
        assert (back["wins"], back["losses"], back["ties"]) == (pair["losses"], pair["wins"], pair["ties"])
        assert (back["p_votes"], back["p_prompts"]) == (pair["p_votes"], pair["p_prompts"])
        assert back["preference"]["low"] == pytest.approx(1 - pair["preference"]["high"])


def test_questions_and_metrics_that_are_not_there_are_named(study: Study) -> None:
    key, _ = study
    with pytest.raises(RunError, match=r"no question 'follow'; did you mean 'follows'"):
        next(metric_votes(key, "world", "follow"))
    with pytest.raises(RunError, match=r"'clip_score' scored no comparison .*\(there are world\)"):
        next(metric_votes(key, "clip_score", "follows"))


def test_where_one_run_always_wins_no_strength_is_made_up(cast: Callable[..., Any], key: AbKey) -> None:
    votes = tuple(cast(0, 1, 0, prompt=f"p{n}", item=f"i{n}") for n in range(6))
    found = score_ab_votes(key, VoteSet(votes=votes, rejected=(), replaced=0))["questions"]["follows"]
    assert found["strengths"] is None
    (pair,) = found["pairs"]
    assert pair["preference"] is None
    assert (pair["win_rate"]["low"], pair["win_rate"]["high"]) == wilson_interval(6, 6)
    assert pair["p_votes"] == pytest.approx(2 / 2**6)
