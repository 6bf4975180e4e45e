"""Writes a model card in Markdown: a description of the bridge, its training, scores, limits and licences.

Marks facts that the run folder lacks, above all licences, as `FILL IN`, and never guesses. The licences of
all parts apply to a bridge. Headings follow Mitchell et al. 2019 (arXiv 1810.03993).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from lavibridge.core.files import shipped_models
from lavibridge.report.formatting import SHARE_UNIT, format_estimate, format_fact, format_score, join_names

_FEW = 100
"""The card calls figures over fewer images uncertain."""


Figures = Sequence[tuple[Mapping[str, Any], str, Mapping[str, Any]]]
"""(table, row, figure)"""


def make_model_card(run: Mapping[str, Any], number: int, tables: Sequence[Mapping[str, Any]]) -> str:
    """Write the card of one run of report.json, with its own scores."""
    own = list(_own(tables, number))
    parts = [_what(run), _made(run), _figures(own), _limits(run, own), _licences(run)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _what(run: Mapping[str, Any]) -> list[str]:
    parts, recipe = run["parts"], run["recipe"]
    connector = (recipe.get("connector") or {}).get("kind", parts["connector"])
    return [
        f"# {run['name']}",
        "",
        f"A lavibridge bridge: the language model `{parts['language']}` conditions the image "
        f"diffusion model `{parts['vision']}` through a trained `{connector}` connector. Both models are "
        "frozen: these weights are the connector, and LoRA if the recipe has it. They include neither "
        "model.",
        "",
        f'    lavi generate {run["name"]} "a red circle"',
    ]


def _made(run: Mapping[str, Any]) -> list[str]:
    lines = ["## Training", "", "| | |", "| --- | --- |"]
    lines += [f"| {each['name']} | {format_fact(each['value'], each['unit'])} |" for each in run["facts"]]
    for name in ("language", "vision", "data"):
        if run["fingerprint"].get(name):
            lines.append(f"| {name}, as hashed | `{run['fingerprint'][name]}` |")
    return lines


def _figures(own: Figures) -> list[str]:
    if not own:
        return ["## Figures", "", "Not evaluated."]
    lines = ["## Figures", "", "| suite | metric | category | n | mean (95 % interval) |", "| --- " * 5 + "|"]
    for table, name, cell in own:
        suite, text = f"{table['suite']} {table['version']}", format_estimate(cell, table["unit"])
        lines.append(f"| {suite} | {table['metric']} | {name} | {cell['n']} | {text} |")
    return lines


def _limits(run: Mapping[str, Any], own: Figures) -> list[str]:
    found = [
        "The bridge cannot generate what the image model cannot generate, nor understand what the language "
        "model does not. It inherits the biases of both."
    ]
    if not run["is_finished"]:
        found.append(f"Training is not finished ({run['state']}).")
    if _is_world(run):
        found.append(
            "It was trained only on the miniature world (drawn shapes of 64 x 64 pixels), and has not been "
            "tested on other prompts."
        )
    found += _weakest(own)
    if any(cell["n"] < _FEW for _, _, cell in own):
        found.append(f"Figures with n below {_FEW} are uncertain: read the intervals.")
    if not own:
        found.append("It has not been evaluated yet.")
    return ["## Limitations", "", *(f"- {each}" for each in found)]


def _weakest(own: Figures) -> Iterator[str]:
    """Per suite and metric of shares, the categories with the lowest mean."""
    for (suite, metric), figures in groupby(own, lambda each: (each[0]["suite"], each[0]["metric"])):
        means = [
            (name, cell["mean"])
            for table, name, cell in figures
            if table["unit"] == SHARE_UNIT and name != "all"
        ]
        lowest = min((mean for _, mean in means), default=None)
        names = [name for name, mean in means if mean == lowest]
        if lowest is not None and len(names) < len(means):
            text = f"{format_score(lowest, SHARE_UNIT)} by {metric} (suite {suite}) in {join_names(names)}"
            yield f"Lowest measured score: {text}."


def _licences(run: Mapping[str, Any]) -> list[str]:
    data = "drawn by lavibridge, Apache-2.0" if _is_world(run) else "FILL IN: of images and captions"
    return [
        "## Licences",
        "",
        f"- language model `{run['parts']['language']}`: {_licence(run['parts']['language'])}",
        f"- image model `{run['parts']['vision']}`: {_licence(run['parts']['vision'])}",
        f"- data: {data}",
        "- these weights: FILL IN: a licence that the licences of all parts allow",
    ]


def _licence(name: str) -> str:
    if name in shipped_models():
        return "shipped with lavibridge, Apache-2.0"
    return "FILL IN: see its own model card"


def _is_world(run: Mapping[str, Any]) -> bool:
    return bool((run["recipe"].get("data") or {}).get("kind") == "world")


def _own(
    tables: Sequence[Mapping[str, Any]], number: int
) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """The run's own scores."""
    for table in tables:
        for place, column in enumerate(table["columns"]):
            if column["run"] == number and column["is_own"]:
                for row in table["rows"]:
                    if row["cells"][place] is not None:
                        yield table, row["name"], row["cells"][place]
