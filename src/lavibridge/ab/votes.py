"""Reads files of votes with the key: every line is a vote, or is rejected with a reason.

A vote of another study is an error, since its file was given by mistake. If one session answers a question
twice (a file downloaded twice), the later answer counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from lavibridge.ab.key import KEY_FORMAT, QUESTIONS, AbKey, KeyItem
from lavibridge.core.config import Config
from lavibridge.core.errors import RunError

VoteChoice = Literal["first", "second", "tie"]


class Vote(Config):
    """An answer to one question about one comparison."""

    study: str
    """The id of the study."""
    form: int
    """The format of the page."""
    rater: str = Field(min_length=1, max_length=100)
    """The rater's name; `metric:NAME` for a metric."""
    session: str = ""
    """A random id that distinguishes raters of one name; drawn when a rater begins."""
    item: str
    """The comparison."""
    question: str
    """The id of the question."""
    choice: VoteChoice
    """The better picture, or a tie."""
    left: Literal["first", "second"] | None = None
    """The picture on the left; null for a metric."""
    ms: int | None = Field(default=None, ge=0)
    """Milliseconds from the question to the answer; null for a metric."""
    at: str = ""
    """Time of the vote, in ISO 8601."""
    metric: str | None = None
    """The voting metric; null for a person."""


@dataclass(frozen=True, kw_only=True)
class UnblindedVote:
    """A vote with the runs behind its pictures."""

    rater: str
    question: str
    item: KeyItem
    first: int
    second: int
    winner: int | None
    """The better run; None for a tie."""
    vote: Vote

    @property
    def prompt(self) -> tuple[str, str]:
        """Category and prompt, which cluster votes."""
        return self.item.category, self.item.prompt


@dataclass(frozen=True, kw_only=True)
class RejectedVote:
    """A line that is not a valid vote."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class VoteSet:
    """The contents of the vote files."""

    votes: tuple[UnblindedVote, ...]
    rejected: tuple[RejectedVote, ...]
    replaced: int
    """Number of answers replaced by a later one of the same session."""


def read_votes(key: AbKey, paths: Sequence[Path]) -> VoteSet:
    """Read the votes of all files.

    Raises RunError for a file that is missing, not text or of another study, for two people of one name, or
    if no vote is left.
    """
    items = {item.item: item for item in key.items}
    kept: dict[tuple[str, str, str], tuple[Vote, Path]] = {}
    rejected: list[RejectedVote] = []
    replaced = 0
    for path in dict.fromkeys(paths):
        for number, line in _lines(path):
            found = _parse(line)
            if isinstance(found, Vote):
                _check_study(found, key, f"{path}: line {number}")
                found = _known(found, items)
            if isinstance(found, str):
                rejected.append(RejectedVote(file=str(path), line=number, reason=found))
                continue
            place = (found.rater, found.item, found.question)
            if place in kept:
                _check_one_person(kept[place], (found, path))
                replaced += 1
                if kept[place][0].at > found.at:
                    continue
            kept[place] = (found, path)
    if not kept:
        lines = "; ".join(f"{each.file}: line {each.line}: {each.reason}" for each in rejected[:3])
        raise RunError(f"no valid vote in {', '.join(map(str, paths))}" + (f" ({lines})" if lines else ""))
    votes = tuple(_unblind(vote, items) for vote, _ in kept.values())
    return VoteSet(votes=votes, rejected=tuple(rejected), replaced=replaced)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The non-empty lines with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is not a file of votes, since it is not UTF-8 text: {error}") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _parse(line: str) -> Vote | str:
    """The vote, or the reason to reject the line."""
    try:
        vote = Vote.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return vote


def _check_study(vote: Vote, key: AbKey, where: str) -> None:
    if vote.study != key.study:
        raise RunError(
            f"{where} is a vote in study {vote.study}, and the key is of {key.study}: omit the file, or "
            "give its own key"
        )


def _known(vote: Vote, items: Mapping[str, KeyItem]) -> Vote | str:
    """The vote if its comparison and question exist, else the reason to reject it."""
    if vote.item not in items or vote.question not in QUESTIONS:
        return f"the study has no comparison '{vote.item}' with a question '{vote.question}'"
    if vote.form != KEY_FORMAT:
        return f"the format is {vote.form}, and this version of lavibridge reads {KEY_FORMAT}"
    return vote


def _check_one_person(before: tuple[Vote, Path], now: tuple[Vote, Path]) -> None:
    if before[0].session != now[0].session:
        raise RunError(
            f"'{now[0].rater}' answers the same question in two sessions ({before[1]} and {now[1]}): for two "
            "people of one name, change `rater` in one of the files; for one person, omit one file"
        )


def _unblind(vote: Vote, items: Mapping[str, KeyItem]) -> UnblindedVote:
    item = items[vote.item]
    winner = {"first": item.first, "second": item.second, "tie": None}[vote.choice]
    return UnblindedVote(
        rater=vote.rater,
        question=vote.question,
        item=item,
        first=item.first,
        second=item.second,
        winner=winner,
        vote=vote,
    )
