"""`lavi prompts`: lists the prompts of a suite, and expands short prompts into long ones."""

from pathlib import Path

import typer

app = typer.Typer(
    help="List the prompts of suites, and expand short prompts.",
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
_CATEGORY = typer.Option(None, "--category", "-c", help="Only this category; repeatable.")
_LIMIT = typer.Option(None, "--limit", "-n", min=1, help="Maximum number of prompts per category.")
_FILE = typer.Argument(metavar="FILE", help="A text file with one short prompt per line.")
_MODEL = typer.Option(..., "--model", "-m", help="A causal language model: a folder or a hub id.")
_OUT = typer.Option(
    ..., "--out", "-o", metavar="FILE", help="The text file to write, with one long prompt per line."
)
_TOKENS = typer.Option(120, "--tokens", min=8, help="Maximum number of tokens of a long prompt.")
_INSTRUCTION = typer.Option(
    None, "--instruction", help="Your own instruction to the model; {prompt} stands for the short prompt."
)


@app.command("list")
def _list_prompts(
    suite: str = _SUITE,
    path: str | None = _PATH,
    category: list[str] | None = _CATEGORY,
    limit: int | None = _LIMIT,
) -> None:
    """Print a suite's prompts, one per line.

    \b
    lavi prompts list world --category one --limit 5
    lavi prompts list lavi-short --prompts captions_val2014.json > short.txt

    Prints a line break inside a prompt as a space.
    """
    from lavibridge.evaluation.suite import open_suite_prompts, read_suite
    from lavibridge.evaluation.tasks import select_task_categories

    source = open_suite_prompts(read_suite(suite).prompts, path)
    for name in select_task_categories(suite, source.categories, category):
        for prompt in source.prompts(name, limit):
            print(" ".join(prompt.text.splitlines()))


@app.command("expand")
def _expand(
    file: Path = _FILE,
    model: str = _MODEL,
    out: Path = _OUT,
    tokens: int = _TOKENS,
    instruction: str | None = _INSTRUCTION,
) -> None:
    """Expand short prompts into long ones with a language model.

    \b
    lavi prompts expand short.txt --model meta-llama/Llama-2-7b-chat-hf --out long.txt

    Keeps the order of the lines and decodes greedily, so that the same model writes the same file. A second
    call continues after an interruption. FILE.json, next to the file, records model and settings. The
    miniature world needs no model for this: its suite `world-long` has long prompts of the same scenes.
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
