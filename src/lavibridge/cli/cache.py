"""`lavi cache`: encodes a recipe's images and captions before training, and verifies the cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import torch

    from lavibridge.training.cache.precompute import PrecomputedFolder

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
_SETTINGS = typer.Argument(
    None, metavar="[key.path=value]...", help="Fields of the recipe to change, as for `lavi train`."
)
_FOLDER = typer.Argument(metavar="FOLDER", help="The folder in training.cache.folder.")
_REPAIR = typer.Option(False, "--repair", help="Remove damaged and incomplete shards; keep intact ones.")


class _FillByDefault(TyperGroup):
    """Reads `lavi cache RECIPE` as `lavi cache fill RECIPE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names, or `fill`."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["fill", *args])


app = typer.Typer(
    cls=_FillByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Encode a recipe's images and captions once, for all runs.\n\n"
    "\b\n"
    "lavi cache my_recipe.yaml training.cache.folder=/data/cache\n"
    "torchrun --nproc_per_node 8 -m lavibridge cache my_recipe.yaml\n"
    "lavi cache verify /data/cache\n\n"
    "`lavi cache RECIPE` is short for `lavi cache fill RECIPE`.",
)


@app.command("fill")
def fill_cache(recipe: str = _RECIPE, settings: list[str] | None = _SETTINGS) -> None:
    """Fill the folder of training.cache.folder.

    Stores the latents of all images, and the features of all captions if the language model has no LoRA.
    Keeps existing entries, so the same command continues after an interruption. Under torchrun or `accelerate
    launch` every process does its share. Prints the folders on stdout.

    \b
    lavi cache fill mini-llama_mini-sd_lavi training.cache.folder=/data/cache
    """
    from lavibridge.core.device import set_threads
    from lavibridge.core.errors import RecipeError
    from lavibridge.core.log import console
    from lavibridge.core.process_rank import rank_from_environment
    from lavibridge.data.base import open_dataset
    from lavibridge.data.pictures.rejected import RejectedPictures
    from lavibridge.recipes.recipe import load_recipe
    from lavibridge.recipes.sections import kind_of_section
    from lavibridge.training.build_bridge import build_bridge
    from lavibridge.training.cache.features import features_refusal
    from lavibridge.training.cache.precompute import precompute_features, precompute_latents
    from lavibridge.training.start_checks import check_start

    loaded = load_recipe(recipe, settings or [])
    cache = loaded.training.cache
    if cache is None:
        raise RecipeError(
            f"the recipe sets no folder to fill: run `lavi cache {recipe} training.cache.folder=FOLDER`, and "
            "then train with the same setting"
        )
    check_start(loaded, None)
    share = rank_from_environment()
    console.quiet = share.rank > 0
    set_threads()
    dataset = open_dataset(kind_of_section(loaded.data), loaded.data, RejectedPictures())
    bridge = build_bridge(loaded).to(_device(loaded.training.device)).eval()
    side = loaded.data.size or bridge.vision.default_size
    bridge.vision.latent_shape(side, side)
    _tell(precompute_latents(bridge, dataset, loaded.training, cache, (side, side), share), "latents")
    reason = features_refusal(bridge)
    if cache.features and reason is None:
        _tell(precompute_features(bridge, dataset, loaded.training, cache, share), "features")
    elif cache.features:
        console.print(f"language features are not cached: {reason}", soft_wrap=True)


@app.command("verify")
def _verify(folder: Path = _FOLDER, repair: bool = _REPAIR) -> None:
    """Read a whole cache folder and compare every entry with its checksum.

    Prints one line per shard on stdout: whole or damaged, number of entries, path. Exits with 1 if damage
    remains. Training skips damaged entries by itself and computes them again.

    \b
    lavi cache verify /data/cache
    lavi cache verify /data/cache --repair
    """
    from contextlib import nullcontext

    from lavibridge.core.lock import hold_lock
    from lavibridge.core.paths import expand_path
    from lavibridge.core.process_rank import require_single_process

    require_single_process("`lavi cache verify`")
    folder = expand_path(folder)
    with hold_lock(folder) if repair and folder.is_dir() else nullcontext():
        _look_through(folder, repair)


def _look_through(folder: Path, repair: bool) -> None:
    """Read a folder, print the result, and remove damaged shards if requested."""
    from lavibridge.core.errors import CacheError
    from lavibridge.core.log import console
    from lavibridge.training.cache.verify import repair as clear
    from lavibridge.training.cache.verify import verify as read

    findings = read(folder)
    bad = [finding for finding in findings if finding.fault is not None]
    for finding in findings:
        verdict = "whole" if finding.fault is None else "damaged"
        print(f"{verdict}\t{finding.entries - finding.damaged}\t{finding.path}")
    for finding in bad:
        console.print(f"{finding.path}: {finding.fault}", soft_wrap=True)
        if repair:
            console.print(f"repaired: kept {clear(finding):,} entries, lost {finding.damaged:,}")
    if bad and not repair:
        raise CacheError(
            f"{len(bad)} of {len(findings)} files in {folder} are damaged: add --repair to remove them and "
            "keep their intact entries"
        )


def _device(name: str) -> "torch.device":
    """The device of this process; under a launcher, each process has its own GPU."""
    from lavibridge.core.device import pick_device
    from lavibridge.core.process_rank import local_rank

    device = pick_device(name)
    return (
        pick_device(f"cuda:{local_rank() or 0}") if device.type == "cuda" and device.index is None else device
    )


def _tell(filled: "PrecomputedFolder", what: str) -> None:
    """Describe a folder's content, and print its path."""
    from lavibridge.core.log import console

    console.print(
        f"{what}: {filled.entries:,} entries ({filled.computed:,} new), {filled.bytes / 1e6:,.1f} MB on disk",
        soft_wrap=True,
    )
    if not console.quiet:
        print(filled.folder)
