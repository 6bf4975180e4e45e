"""`lavi ab`: runs blind user studies of evaluated runs."""

from pathlib import Path

import typer

from lavibridge.core.seeds import MAX_SEED

app = typer.Typer(
    help="Blind user studies: build a page, collect votes, score them.\n\n"
    "\b\n"
    "  lavi ab build runs/a runs/b --out ab.html     a page for raters, and its key\n"
    "  lavi ab score ab.key.json votes-*.jsonl       the raters' preferences, with intervals",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_RUNS = typer.Argument(
    metavar="RUN RUN...", help="Run folders that were evaluated, or folders that `lavi evaluate` wrote to."
)
_SUITE = typer.Option("world", "--suite", help="The suite whose evaluations to use.")
_OUT = typer.Option(
    ..., "--out", "-o", metavar="FILE", help="File of the page; the key is written next to it."
)
_PROMPTS = typer.Option(None, "--prompts", min=1, help="Number of prompts.  [default: 40, or all]")
_PER_PROMPT = typer.Option(1, "--per-prompt", min=1, help="Pairs of runs per prompt.")
_REPEATS = typer.Option(
    None, "--repeats", min=0, help="Comparisons to repeat with swapped sides.  [default: one in ten]"
)
_SIDE = typer.Option(768, "--side", min=32, help="Maximum side of an image, in pixels.")
_SEND_TO = typer.Option(
    "", "--send-to", metavar="TEXT", help="Address to which raters send their votes, shown on the page."
)
_SEED = typer.Option(
    None,
    "--seed",
    min=0,
    max=MAX_SEED,
    help="Seed that reproduces the page; keep it from raters.  [default: random]",
)
_KEY = typer.Argument(metavar="KEY", help="The .key.json that `lavi ab build` wrote.")
_VOTES = typer.Argument(metavar="VOTES...", help="Files of votes.")
_JSON = typer.Option(None, "--json", metavar="FILE", help="Write all figures as JSON.")
_METRIC = typer.Option("world", "--metric", "-m", help="A metric of the runs' evaluations.")
_QUESTION = typer.Option(
    "follows", "--question", help="The question that the metric answers: follows or looks."
)


@app.command("build")
def _build(
    runs: list[Path] = _RUNS,
    out: Path = _OUT,
    suite: str = _SUITE,
    prompts: int | None = _PROMPTS,
    per_prompt: int = _PER_PROMPT,
    repeats: int | None = _REPEATS,
    side: int = _SIDE,
    send_to: str = _SEND_TO,
    seed: int | None = _SEED,
) -> None:
    """Build a page on which raters compare runs' images of the same prompts and noises.

    \b
    lavi ab build runs/a runs/b --out ab.html
    lavi ab build runs/a runs/b runs/c --suite parti --prompts 60 --per-prompt 3 --out ab.html

    The page is one file that needs no network: send it, or put it on any web server. Neither the page nor its
    source reveals which run made an image; only the key does, so keep it from raters. Raters answer two
    questions about each pair and send back a file of votes. Prints the paths of page and key on stdout.
    """
    from lavibridge.ab.build import build_ab_study
    from lavibridge.core.lock import hold_file_lock

    with hold_file_lock(out):
        page, key = build_ab_study(
            runs,
            suite,
            out,
            prompts=prompts,
            per_prompt=per_prompt,
            repeats=repeats,
            side=side,
            send_to=send_to,
            seed=seed,
        )
    print(page)
    print(key)


@app.command("score")
def _score(key: Path = _KEY, votes: list[Path] = _VOTES, json: Path | None = _JSON) -> None:
    """Score votes: how often each run wins, with intervals, and how well raters agree.

    \b
    lavi ab score ab.key.json votes-*.jsonl
    lavi ab score ab.key.json votes-*.jsonl --json scores.json

    Win rates count a tie as half a win and have Wilson intervals; p is that of the two-sided sign test, over
    votes and over prompts. Three or more runs get strengths in Elo points (Davidson's model), with intervals
    over prompts and raters. Lists and counts invalid lines on stderr; votes of another study are an error.
    """
    import sys

    from rich.console import Console

    from lavibridge.ab.key import read_ab_key
    from lavibridge.ab.score import score_ab_votes
    from lavibridge.ab.table import ab_tables
    from lavibridge.ab.votes import read_votes
    from lavibridge.core.files import write_json
    from lavibridge.core.log import console

    found = read_ab_key(key)
    read = read_votes(found, votes)
    scored = score_ab_votes(found, read)
    if json is not None:
        write_json(json, scored)
    for each in read.rejected:
        console.print(f"rejected {each.file}, line {each.line}: {each.reason}", soft_wrap=True)
    if read.rejected:
        console.print(f"rejected {len(read.rejected)} lines that are not valid votes")
    # Lines in a file or a pipe need not wrap.
    out = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    for part in ab_tables(scored):
        out.print(part, soft_wrap=isinstance(part, str))


@app.command("vote")
def _vote(key: Path = _KEY, metric: str = _METRIC, question: str = _QUESTION) -> None:
    """Let a metric vote in place of a person, for the image with the higher score.

    \b
    lavi ab vote ab.key.json > votes-checker.jsonl
    lavi ab vote ab.key.json --metric aesthetics --question looks > votes-aesthetics.jsonl

    The default metric is the exact checker of the miniature world. Prints the votes on stdout. Pass them to
    `lavi ab score` together with people's votes to see how often the metric agrees with people; they do not
    count as people's votes.
    """
    from lavibridge.ab.key import read_ab_key
    from lavibridge.ab.metric_votes import metric_votes

    for each in list(metric_votes(read_ab_key(key), metric, question)):
        print(each.model_dump_json())
