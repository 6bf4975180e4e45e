"""`lavi plan`: estimates the memory, time, cost and disk space of a run before it starts."""

import typer

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
_SETTINGS = typer.Argument(None, metavar="[key.path=value]...", help="Fields of the recipe to change.")
_DEVICE = typer.Option(
    "here", "--device", metavar="NAME", help="A known device, such as h100 or rtx4090, or `here`."
)
_GB = typer.Option(None, "--gb", min=0.1, help="The device's memory in GiB.  [default: the device's own]")
_PICTURES = typer.Option(None, "--pictures", min=1, help="Number of images in the data.")
_TOKENS = typer.Option(
    None, "--tokens", min=2, help="Tokens per caption.  [default: the maximum of the recipe]"
)
_DEVICES = typer.Option(1, "--devices", min=1, help="Number of devices.")
_PRICE = typer.Option(None, "--price", min=0, help="Price of one device per hour.")
_SEARCH = typer.Option(
    False, "--search", help="Search for the fastest settings that fit, even if the recipe's own fit."
)
_JSON = typer.Option(False, "--json", help="Print all figures as JSON, in bytes, seconds and operations.")


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
    """Estimate memory, time, cost and disk space of a run without loading weights.

    Builds both models from their configurations, without weights, and traces a real training step through
    them. If the run does not fit, searches for settings that do.

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
