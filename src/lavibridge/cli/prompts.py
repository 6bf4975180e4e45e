"""`lavi prompts`: the prompts of a suite, and longer ones made of them."""

from pathlib import Path

import typer

app = typer.Typer(
    help="Prompts of suites: list, make longer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SUITE = typer.Argument(metavar="SUITE", help="A suite's name or a path to its YAML file.")
_PATH = typer.Option(
    None,
    "--prompts",
    metavar="PATH",
    help="The suite's prompt file or folder, or hf://datasets/OWNER/NAME/FILE.",
)
_CATEGORY = typer.Option(None, "--category", "-c", help="Only this category; may be given again.")
_LIMIT = typer.Option(None, "--limit", "-n", min=1, help="Maximum number of prompts per category.")
_FILE = typer.Argument(metavar="FILE", help="A text file with one short prompt a line.")
_MODEL = typer.Option(..., "--model", "-m", help="A causal language model: a folder or a hub id.")
_OUT = typer.Option(
    ..., "--out", "-o", metavar="FILE", help="The text file to write, one long prompt a line."
)
_TOKENS = typer.Option(120, "--tokens", min=8, help="The most tokens that a long prompt has.")
_INSTRUCTION = typer.Option(None, "--instruction", help="Other words to ask with; {prompt} is the short one.")


@app.command("list")
def list_prompts(
    suite: str = _SUITE,
    path: str | None = _PATH,
    category: list[str] | None = _CATEGORY,
    limit: int | None = _LIMIT,
) -> None:
    """Print a suite's prompts, one a line.

    \b
    lavi prompts list world --category one --limit 5
    lavi prompts list lavi-short --prompts captions_val2014.json > short.txt

    A line end inside a prompt is printed as a space.
    """
    from lavibridge.evaluation.suite import open_prompts, read_suite
    from lavibridge.evaluation.tasks import select_categories

    source = open_prompts(read_suite(suite).prompts, path)
    for name in select_categories(suite, source.categories, category):
        for prompt in source.prompts(name, limit):
            print(" ".join(prompt.text.splitlines()))


@app.command()
def expand(
    file: Path = _FILE,
    model: str = _MODEL,
    out: Path = _OUT,
    tokens: int = _TOKENS,
    instruction: str | None = _INSTRUCTION,
) -> None:
    """Let a language model make short prompts long.

    \b
    lavi prompts expand short.txt --model meta-llama/Llama-2-7b-chat-hf --out long.txt

    Line by line in the same order, greedily, so that the same model makes the same file. A second call goes
    on where the first was stopped. Beside the file lies FILE.json, which says who wrote it. The miniature
    world needs no model: its suite `world-long` says the same specs at length.
    """
    from lavibridge.core.lock import hold_file_lock
    from lavibridge.evaluation.prompt_expansion import (
        EXPANSION_INSTRUCTION,
        PromptExpander,
        expand_prompt_file,
    )

    with hold_file_lock(out):
        expand_prompt_file(file, PromptExpander(model, tokens, instruction or EXPANSION_INSTRUCTION), out)
    print(out)
