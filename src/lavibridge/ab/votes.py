"""Files of votes read against the key: every line is a vote, or is named with what is wrong with it.

A vote of another study is an error, since its file was given by mistake. Whoever answers a question twice in
one session (a file fetched twice) is counted once, with the later answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lavibridge.ab.key import FORM, QUESTIONS, Item, StudyKey, Vote
from lavibridge.core.errors import RunError


@dataclass(frozen=True, kw_only=True)
class UnblindedVote:
    """A vote, un-blinded."""

    rater: str
    question: str
    item: Item
    first: int
    second: int
    winner: int | None
    """The better run; None = a tie."""
    vote: Vote

    @property
    def prompt(self) -> tuple[str, str]:
        """What clusters votes: category and prompt."""
        return self.item.category, self.item.prompt


@dataclass(frozen=True, kw_only=True)
class RejectedLine:
    """A line that is no vote of this study's form."""

    file: str
    line: int
    why: str


@dataclass(frozen=True, kw_only=True)
class VoteSet:
    """All that the files hold."""

    cast: tuple[UnblindedVote, ...]
    dropped: tuple[RejectedLine, ...]
    replaced: int
    """Answers that a later one of the same session took the place of."""


def read_votes(key: StudyKey, paths: Sequence[Path]) -> VoteSet:
    """The votes of all files.

    RunError for a file that is absent, is no text or is of another study, for two people of one name, or
    where no vote is left.
    """
    items = {item.item: item for item in key.items}
    kept: dict[tuple[str, str, str], tuple[Vote, Path]] = {}
    dropped: list[RejectedLine] = []
    replaced = 0
    for path in dict.fromkeys(paths):
        for number, line in _lines(path):
            found = _parse(line)
            if isinstance(found, Vote):
                _check_study(found, key, f"{path}: line {number}")
                found = _known(found, items)
            if isinstance(found, str):
                dropped.append(RejectedLine(file=str(path), line=number, why=found))
                continue
            place = (found.rater, found.item, found.question)
            if place in kept:
                _check_one_person(kept[place], (found, path))
                replaced += 1
                if kept[place][0].at > found.at:
                    continue
            kept[place] = (found, path)
    if not kept:
        lines = "; ".join(f"{each.file}: line {each.line}: {each.why}" for each in dropped[:3])
        raise RunError(f"there is no vote in {', '.join(map(str, paths))}" + (f" ({lines})" if lines else ""))
    cast = tuple(_unblind(vote, items) for vote, _ in kept.values())
    return VoteSet(cast=cast, dropped=tuple(dropped), replaced=replaced)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that hold anything, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is no UTF-8 text, and so no file of votes: {error}") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _parse(line: str) -> Vote | str:
    """The vote, or what is wrong with it."""
    try:
        vote = Vote.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return vote


def _check_study(vote: Vote, key: StudyKey, where: str) -> None:
    if vote.study != key.study:
        raise RunError(
            f"{where} is a vote in study {vote.study}, and the key is of {key.study}: leave the file out, or "
            "give its own key"
        )


def _known(vote: Vote, items: Mapping[str, Item]) -> Vote | str:
    """The vote if it is about something in the study, else what is wrong with it."""
    if vote.item not in items or vote.question not in QUESTIONS:
        return f"the study has no comparison '{vote.item}' with a question '{vote.question}'"
    if vote.form != FORM:
        return f"form is {vote.form}, and this version of lavibridge reads {FORM}"
    return vote


def _check_one_person(before: tuple[Vote, Path], now: tuple[Vote, Path]) -> None:
    if before[0].session != now[0].session:
        raise RunError(
            f"'{now[0].rater}' answers the same question in two sessions ({before[1]} and {now[1]}): of two "
            "people of one name, change `rater` in one of the files; of one person, leave one file out"
        )


def _unblind(vote: Vote, items: Mapping[str, Item]) -> UnblindedVote:
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
