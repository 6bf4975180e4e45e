"""Counts the votes on a pair of runs: win rate with interval, and sign tests.

    win rate    (wins + ties / 2) / votes, with Wilson's interval
    sign test   p = min(1, 2 sum over k <= min(wins, losses) of C(n, k) / 2^n), n = wins + losses: two-sided

Both assume independent votes, which several votes on one prompt are not. A second sign test over prompts
gives each prompt one sign, that of its majority (Dixon and Mood 1946, J. Am. Stat. Assoc. 41).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lavibridge.ab.votes import UnblindedVote
from lavibridge.evaluation.stats import sign_test, wilson_interval


@dataclass(frozen=True, kw_only=True)
class Tally:
    """One run's record against another."""

    wins: int
    losses: int
    ties: int
    prompts: int
    """Number of distinct prompts."""
    p: float
    """Sign test over votes."""
    p_prompts: float
    """Sign test over prompts."""

    @property
    def votes(self) -> int:
        """The total number of votes."""
        return self.wins + self.losses + self.ties

    def record(self) -> dict[str, Any]:
        """The tally as JSON."""
        score = self.wins + self.ties / 2
        low, high = wilson_interval(score, self.votes)
        rate = {"mean": score / self.votes, "low": low, "high": high} if self.votes else None
        return {
            "n": self.votes,
            "prompts": self.prompts,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "win_rate": rate,
            "p_votes": self.p,
            "p_prompts": self.p_prompts,
        }


def tally_votes(votes: Sequence[UnblindedVote], run: int, other: int) -> Tally:
    """Count the votes on a pair of runs, from the side of `run`; ignores votes on other pairs."""
    mine = [vote for vote in votes if {vote.first, vote.second} == {run, other}]
    signs: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    for vote in mine:
        counts["tie" if vote.winner is None else "win" if vote.winner == run else "loss"] += 1
        signs[vote.prompt] += 0 if vote.winner is None else 1 if vote.winner == run else -1
    return Tally(
        wins=counts["win"],
        losses=counts["loss"],
        ties=counts["tie"],
        prompts=len(signs),
        p=sign_test(counts["win"], counts["loss"]),
        p_prompts=sign_test(
            sum(each > 0 for each in signs.values()), sum(each < 0 for each in signs.values())
        ),
    )
