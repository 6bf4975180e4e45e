"""`lavi`: registers the subcommands, and turns errors into one line and an exit code.

    0 done    1 an error, with a remedy    2 wrong usage    128 + n stopped by signal n (Ctrl-C: 130)

Data goes to stdout, everything else to stderr (core/streams.py). No file of the command line imports torch at
the top: a subcommand imports its dependencies when it is called, so that `lavi --help` answers at once.
"""

import sys
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup

from lavibridge import __version__
from lavibridge.cli import (
    ab,
    align,
    cache,
    compare,
    data,
    doctor,
    evaluate,
    export,
    generate,
    import_released,
    pivot,
    plan,
    prompts,
    push,
    quickstart,
    report,
    serve,
    show,
    study,
    train,
    world,
)
from lavibridge.core.errors import LaviError
from lavibridge.core.process_rank import require_single_process
from lavibridge.core.signals import exit_on_signals
from lavibridge.core.streams import escape_controls, guard_streams
from lavibridge.core.thread_spinning import set_spin_count
from lavibridge.core.unicode_text import is_valid_unicode

_FOR_SEVERAL = ("train", "align", "evaluate", "cache", "study")
"""Subcommands whose work several processes can share."""
_WRITES_NOTHING = ("show", "doctor", "plan", "compare")
_HELP = frozenset(("-h", "--help"))


class _Verbs(TyperGroup):
    """The subcommands; refuses several processes for a subcommand that only one can run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; one that is not valid UTF-8 is a usage error."""
        for arg in args:
            if not is_valid_unicode(arg):
                raise typer.BadParameter(f"{arg!r} is not UTF-8: type it again, or rename the file")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names."""
        name, command, rest = super().resolve_command(ctx, args)
        if (
            command is not None
            and name not in _FOR_SEVERAL + _WRITES_NOTHING
            and not _HELP.intersection(rest)
        ):
            require_single_process(f"`lavi {name}`")
        return name, command, rest


app = typer.Typer(
    name="lavi",
    cls=_Verbs,
    help="Connect a language model to an image diffusion model: train, generate, evaluate.\n\n"
    "\b\nStart here:\n"
    "  lavi quickstart                                   train and evaluate a small bridge in minutes\n"
    "  lavi show                                         list what you can combine\n"
    '  lavi generate runs/quickstart "a red circle"      generate an image with a trained bridge\n'
    "  lavi train mini-llama_mini-sd_lavi training.steps=2000 --out runs/first",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(requested: bool) -> bool:
    if requested:
        print(__version__)
        raise typer.Exit
    return requested


@app.callback()
def _lavi(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Define the options of `lavi` itself; every subcommand has its own `--help`."""


app.command("quickstart")(quickstart.quickstart)
app.command("plan")(plan.plan)
app.command("train")(train.train)
app.command("align")(align.align)
app.command("generate")(generate.generate)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("study")(study.study)
app.command("serve")(serve.serve)
app.command("import")(import_released.import_released)
app.command("export")(export.export)
app.command("push")(push.push)
app.command("show")(show.show)
app.command("doctor")(doctor.doctor)
app.add_typer(ab.app, name="ab")
app.add_typer(cache.app, name="cache")
app.add_typer(data.app, name="data")
app.add_typer(pivot.app, name="pivot")
app.add_typer(prompts.app, name="prompts")
app.add_typer(world.app, name="world")


def main() -> None:
    """Run the command line and exit with its exit code."""
    set_spin_count()
    guard_streams()
    exit_on_signals()
    try:
        _attempt()
    except LaviError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped by Ctrl-C", 130)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", 1)
    finally:
        with suppress(SystemExit, LaviError):  # one error is enough
            sys.stdout.flush()


def _attempt() -> None:
    """Run a subcommand, and flush its results."""
    try:
        app()
    except SystemExit as end:
        if not end.code:
            sys.stdout.flush()
        raise


def _fail(text: str, code: int) -> None:
    print(f"error: {escape_controls(text)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
