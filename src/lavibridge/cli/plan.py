"""`lavi plan`: what a run will take, before anything is downloaded or spent."""

import typer

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
_SETTINGS = typer.Argument(None, metavar="[key.path=value]...", help="Fields of the recipe to change.")
_DEVICE = typer.Option(
    "here", "--device", metavar="NAME", help="A device of the table, such as h100 or rtx4090, or `here`."
)
_GB = typer.Option(None, "--gb", min=0.1, help="GiB of the device's memory.  [default: the table's]")
_PICTURES = typer.Option(None, "--pictures", min=1, help="Pictures in the data.")
_TOKENS = typer.Option(
    None, "--tokens", min=2, help="Tokens of a caption.  [default: the most that the recipe allows]"
)
_DEVICES = typer.Option(1, "--devices", min=1, help="How many of the device.")
_PRICE = typer.Option(None, "--price", min=0, help="Of one device for an hour.")
_SEARCH = typer.Option(False, "--search", help="Look for the fastest choice that fits, even where it fits.")
_JSON = typer.Option(False, "--json", help="All figures as JSON: bytes, seconds, operations.")


def plan(
    recipe: str = _RECIPE,
    settings: list[str] | None = _SETTINGS,
    device: str = _DEVICE,
    gb: float | None = _GB,
    pictures: int | None = _PICTURES,
    tokens: int | None = _TOKENS,
    devices: int = _DEVICES,
    price: float | None = _PRICE,
    search: bool = _SEARCH,
    as_json: bool = _JSON,
) -> None:
    """Tell memory, time, cost and disk of a run; load nothing.

    Both models are built without weights from their configurations, and a real training step is traced
    through them. Where the run does not fit, what to change is looked for.

    \b
    lavi plan quickstart
    lavi plan t5-large_sd14_lavi --device rtx4090 --pictures 1000000
    lavi plan llama2-7b_sd14_lavi --device l4 --price 0.8 training.steps=20000
    """
    import json
    from dataclasses import asdict

    from lavibridge.core.log import progress_bar
    from lavibridge.plan.devices import find_device
    from lavibridge.plan.plan import PlanOptions, make_plan, max_ticks
    from lavibridge.plan.table import plan_lines
    from lavibridge.recipes.recipe import load_recipe

    loaded = load_recipe(recipe, settings or [])
    terms = PlanOptions(gb=gb, pictures=pictures, tokens=tokens, devices=devices, price=price, search=search)
    with progress_bar("traced") as bar:
        task = bar.add_task("planning", total=max_ticks(loaded), status="")
        found = make_plan(loaded, find_device(device), terms, lambda: bar.advance(task))
        bar.update(task, total=bar.tasks[task].completed)
    print(json.dumps(asdict(found), indent=2) if as_json else "\n".join(plan_lines(found)))
