"""`lavi plan`: published figures, what fits, and what is printed."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core import registry
from lavibridge.core.errors import RecipeError
from lavibridge.plan.devices import GIB, GPUS, find_device, measure_device
from lavibridge.plan.estimate import estimate_costs
from lavibridge.plan.meta_model import build_meta_bridge, model_parts, offloaded_bytes, with_changes
from lavibridge.plan.metered_passes import encoding_pass, training_pass
from lavibridge.plan.plan import PlanOptions, count_encodings, make_plan
from lavibridge.plan.search import SHARE
from lavibridge.plan.table import plan_lines
from lavibridge.recipes.recipe import Recipe, load_recipe, make_recipe

SMALL = ["language.source=random", "vision.source=random", "lora.language.rank=4", "lora.vision.rank=4"]
LIGHT = [
    *("language.source=random", "vision.source=random", "lora={language: null, vision: null}"),
    *("data.size=64", "training.precision=float32", "training.checkpointing=true"),
]
"""With checkpointing there is half as much to try, and without LoRA there is half as much to trace."""


def at_true_size(published: Path, *settings: str) -> Recipe:
    sources = [f"language.source={published}/t5-large", f"vision.source={published}/sd14"]
    return load_recipe("t5-large_sd14_lavi", [*sources, *settings])


def test_a_folder_without_weights_has_the_published_numbers_of_weights(published: Path) -> None:
    recipe = at_true_size(published)
    bridge = build_meta_bridge(recipe)
    found = {part.name: part for part in model_parts(bridge)}
    assert all(weight.is_meta for weight in (*bridge.parameters(), *bridge.buffers()))
    assert found["language model"].trained == 6_291_456
    assert found["connector"].trained == 21_254_528
    assert found["denoiser"].trained == 28_291_072
    assert found["denoiser"].frozen == 859_520_964
    assert found["autoencoder"].frozen == 83_653_863
    whole, quarter = (model_parts(bridge, bits)[0].bytes for bits in (None, "4bit"))
    linears = 24 * (4 * 1024 * 1024 + 2 * 1024 * 4096)
    assert whole - quarter == pytest.approx(linears * (4 - 4.5 / 8), rel=1e-6)
    whole, eighth = (model_parts(bridge, None, bits)[2].bytes for bits in (None, "8bit"))
    linears = [each for each in bridge.vision.backbone.modules() if isinstance(each, torch.nn.Linear)]
    packed = sum(each.weight.numel() for each in linears if not each.weight.requires_grad)
    assert whole - eighth == 3 * packed
    assert 0.3 * 859_520_964 < packed < 0.5 * 859_520_964, "the other weights are convolutions"
    up = list(bridge.vision.backbone.up_blocks)
    largest = max(sum(weight.nbytes for weight in block.parameters()) for block in up)
    blocks = [*bridge.vision.backbone.down_blocks, *up]
    every = sum(weight.nbytes for block in blocks for weight in block.parameters())
    assert offloaded_bytes(bridge, model_parts(bridge)) == every - largest


@pytest.mark.slow
def test_arithmetic_at_true_size_is_the_published_one(published: Path) -> None:
    """As counted for a sample of the published pair at 512 x 512: 1117, 48, 3 and 841 GFLOP."""
    recipe = at_true_size(published)
    bridge = build_meta_bridge(recipe)
    work = training_pass(bridge, recipe, 1, None, "cuda")
    assert encoding_pass(bridge, recipe, 1).flops() == pytest.approx(1117e9, rel=0.01)
    assert work.flops("language model") == pytest.approx(48e9, rel=0.01)
    assert work.flops("connector") == pytest.approx(3.27e9, rel=0.01)
    assert work.flops("denoiser") == pytest.approx(841e9, rel=0.01)
    assert work.flops("backward pass") == pytest.approx(1052e9, rel=0.07)  # and the scores once more


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(each, marks=[] if each == "sana" else pytest.mark.slow)
        for each in registry.kinds("vision")
    ],
)
def test_every_family_can_be_planned(kind: str) -> None:
    recipe = make_recipe(
        {
            "language": {"kind": "llama", "source": "random"},
            "vision": {"kind": kind, "source": "random"},
            "connector": {"kind": "lavi"},
            "lora": {"language": {"rank": 4}, "vision": {"rank": 4}},
            "data": {"kind": "world", "scenes": 8},
            "training": {"steps": 1},
        }
    )
    work = training_pass(build_meta_bridge(recipe), recipe, 2, None, "cuda")
    assert work.flops("denoiser") > 0
    assert work.flops("backward pass") > work.flops("denoiser")


def test_features_from_a_cache_take_the_language_model_out_of_the_step() -> None:
    toys = [
        *("language={kind: llama, source: random}", "vision={kind: sd, source: random}"),
        *("connector={kind: lavi}", "lora={language: null, vision: {rank: 4}}"),
    ]
    recipe = load_recipe("quickstart", toys)
    kept = with_changes(recipe, {"training": {"feature_cache_gb": 1.0}})
    bridge = build_meta_bridge(recipe)
    assert training_pass(bridge, recipe, 2, None, "cpu").flops("language model") > 0
    assert training_pass(bridge, kept, 2, None, "cpu").flops("language model") == 0


def test_the_language_model_is_not_counted_once_its_features_are_cached() -> None:
    recipe = load_recipe("t5-large_pixart_lavi", [*LIGHT, "training.cache={folder: cache}"])
    plan = make_plan(recipe, GPUS["l4"], PlanOptions(tokens=20))
    steps = plan.memory_total - plan.parts[0].bytes
    previews = plan.drawing + plan.memory.optimiser + plan.memory.average
    assert steps != previews
    assert plan.memory_without_language_model == max(steps, previews)
    assert "without language model" in "\n".join(plan_lines(plan))
    in_memory = with_changes(recipe, {"training": {"cache": None, "feature_cache_gb": 1.0}})
    stays = make_plan(in_memory, GPUS["l4"], PlanOptions(tokens=20))
    assert stays.memory_without_language_model is None


def test_what_does_not_fit_is_answered_with_settings_that_do() -> None:
    recipe = load_recipe("t5-large_pixart_lavi", [*LIGHT, "training.batch=64"])
    whole = make_plan(recipe, GPUS["l4"], PlanOptions(pictures=1000, price=2.0, devices=2))
    assert whole.fits
    assert not whole.choices
    assert whole.cost == pytest.approx(whole.hours * 2 * 2.0)
    gb = 0.6 * whole.memory_total / GIB
    tight = make_plan(recipe, GPUS["l4"], PlanOptions(gb=gb, tokens=20))
    assert not tight.fits
    assert tight.choices
    assert all(each.memory <= SHARE * tight.memory_of_device for each in tight.choices)
    assert all(each.batch * each.accumulate == 64 * 8 for each in tight.choices)
    best = tight.choices[0]
    assert best.seconds == min(each.seconds for each in tight.choices)
    asked = load_recipe("t5-large_pixart_lavi", [*LIGHT, "training.batch=64", *best.settings])
    again = estimate_costs(asked, build_meta_bridge(asked), best.batch, 20, "cuda")
    assert again.memory.total == pytest.approx(best.memory, rel=0.001)
    table = "\n".join(plan_lines(tight))
    assert "does NOT fit in" in table
    assert " ".join(best.settings) in table


def test_pictures_that_memory_keeps_are_encoded_once() -> None:
    recipe = load_recipe("t5-large_pixart_lavi", [*SMALL, "data.size=64", "training.steps=100"])
    found = estimate_costs(recipe, build_meta_bridge(recipe), 1, None, "cpu")
    visits = 100 * recipe.training.batch * recipe.training.accumulate
    assert count_encodings(recipe, PlanOptions(pictures=500), found) == 500
    assert count_encodings(recipe, PlanOptions(), found) == visits
    none = with_changes(recipe, {"training": {"latent_cache_gb": 0.0}})
    assert count_encodings(none, PlanOptions(pictures=500), found) == visits
    folder = with_changes(recipe, {"training": {"cache": {"folder": "cache"}}})
    assert count_encodings(folder, PlanOptions(pictures=500), found) == 0


def test_this_machine_can_be_measured() -> None:
    here = measure_device()
    assert here.is_measured
    assert min(here.half, here.single, here.bandwidth) > 1e6
    assert 1e-9 < here.launch < 1e-2
    assert here.memory > 2**28
    assert torch.get_num_threads() >= 1


def test_an_unknown_device_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'rtx4090'.*here, h200"):
        find_device("rtx4080")


def test_the_command_prints_a_table_or_json() -> None:
    asked = ["plan", "t5-large_pixart_lavi", *LIGHT, "--device", "l4", "--pictures", "1000"]
    told = CliRunner().invoke(app, [*asked, "--json"])
    assert told.exit_code == 0, told.stderr
    plan = json.loads(told.stdout)
    assert plan["fits"] is True
    assert plan["latent_bytes"] == 2 * 4 * (4 * 16 * 16)
    table = CliRunner().invoke(app, asked).stdout
    assert "fits in the 24.00 GiB of l4" in table
    assert "images per second" in table
