"""Questions that hang on each other: what is taken back, and where the published script takes back less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavibridge.evaluation.benchmarks.dsg import (
    DsgQuestion,
    DsgQuestionGraph,
    cascade_dsg,
    cascade_dsg_as_published,
)


def questions(*parents: tuple[int, ...]) -> tuple[DsgQuestion, ...]:
    """Questions 1, 2, ... with their parents."""
    return tuple(
        DsgQuestion(number=i, text=f"{i}?", category="entity", parents=each)
        for i, each in enumerate(parents, 1)
    )


def answers(pattern: str) -> dict[int, bool]:
    return {i: letter == "y" for i, letter in enumerate(pattern, 1)}


def values(found: dict[int, float] | None) -> str:
    return "none" if found is None else "".join(f"{value:.0f}" for value in found.values())


CHAIN = questions((), (1,), (2,), (1, 3))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("yyyy", "1111"), ("nyyy", "0000"), ("ynyy", "1000"), ("yyny", "1100"), ("yyyn", "1110")],
)
def test_a_no_takes_back_all_that_hangs_on_it(pattern, expected):
    assert values(cascade_dsg(CHAIN, answers(pattern))) == expected
    assert values(cascade_dsg_as_published(CHAIN, answers(pattern))) == expected


def test_the_published_script_reads_once_in_the_order_of_the_file():
    backwards = questions((2,), (3,), ())  # 1 hangs on 2, which hangs on 3
    assert values(cascade_dsg(backwards, answers("yyn"))) == "000"
    assert values(cascade_dsg_as_published(backwards, answers("yyn"))) == "100"


def test_the_published_script_breaks_off_without_its_first_line():
    without_first = CHAIN[1:]
    assert cascade_dsg_as_published(without_first, answers("yyyy")) is None
    assert values(cascade_dsg_as_published(questions((), ())[1:], answers("yy"))) == "1"


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], str]:
    count = draw(st.integers(1, 7))
    parents = [tuple(sorted(draw(st.sets(st.integers(1, i), max_size=2)))) if i else () for i in range(count)]
    return parents, "".join(draw(st.sampled_from("yn")) for _ in range(count))


@given(forests())
def test_both_agree_where_parents_come_first(forest):
    asked, yes = questions(*forest[0]), answers(forest[1])
    found = cascade_dsg(asked, yes)
    assert found == cascade_dsg_as_published(asked, yes)
    assert all(found[each.number] <= float(yes[each.number]) for each in asked)
    assert all(found[each.number] <= min([found[p] for p in each.parents], default=1) for each in asked)


def test_what_is_wrong_with_questions():
    assert DsgQuestionGraph(questions=CHAIN).problem() == ""
    assert "repeat" in DsgQuestionGraph(questions=(*CHAIN, CHAIN[0])).problem()
    assert "does not exist" in DsgQuestionGraph(questions=questions((9,))).problem()
    assert "cycle" in DsgQuestionGraph(questions=questions((2,), (1,))).problem()
