"""A plan counts the alignment before a training: what is planned of a step is what a real one takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from allocations import allocated
from torch.utils.flop_counter import FlopCounterMode
from toy_pipelines import pipeline

from lavibridge import lora
from lavibridge.alignment.base import NoisedLatents
from lavibridge.plan.alignment_passes import alignment_cost
from lavibridge.plan.alignment_plan import estimate_alignment
from lavibridge.plan.devices import GPUS
from lavibridge.plan.meta_model import VISION_PARTS, build_meta_bridge, model_parts, with_changes
from lavibridge.plan.plan import PlanOptions, make_plan
from lavibridge.plan.table import plan_lines
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.training.alignment.objective import alignment_method
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.objectives.native_encoder import native_bridge

CAPTIONS, IMAGES = 8, 4
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")


def aligned(source: str, match: str, **align: Any) -> Recipe:
    return make_recipe(
        {
            "language": {"kind": "llama", "source": "random"},
            "vision": {"source": source},
            "connector": {"kind": "lavi"},
            "lora": {"language": None, "vision": {"rank": 4}},
            "data": {"kind": "world", "scenes": 8, "size": 64},
            "training": {
                "steps": 1,
                "batch": IMAGES,
                "checkpointing": True,
                "align": {"match": match, "batch": CAPTIONS, "noised_latents": IMAGES, **align},
            },
        }
    )


@pytest.mark.parametrize("match", ["attention", "prediction"])
def test_a_planned_step_is_a_real_one(match: str, tmp_path: Path) -> None:
    """Arithmetic, memory, and what the objective keeps of the latents."""
    pipeline("sd").save_pretrained(tmp_path)
    recipe = aligned(str(tmp_path), match)
    planned = alignment_cost(build_meta_bridge(recipe), recipe, CAPTIONS, None, "cpu")
    assert planned is not None
    assert planned.step is not None
    bridge = build_bridge(recipe).eval()
    teacher = native_bridge(bridge, "training.align")
    objective = alignment_method(recipe).objective
    latents = torch.randn(IMAGES, *bridge.vision.latent_shape(64, 64))
    captions = ("x y z " * 200,) * IMAGES
    times = torch.tensor([10.0, 300.0, 600.0, 900.0])
    weights = list(bridge.connector.parameters())

    def step() -> None:
        with lora.disable_adapters(bridge.vision.backbone):
            chosen = objective.choose(CAPTIONS, torch.Generator().manual_seed(0))
            torch.autograd.grad(objective.loss(bridge, teacher, *features, chosen), weights)

    objective.prepare(bridge, teacher, [NoisedLatents(latents=latents, t=times, prompts=captions)])
    with torch.no_grad():
        features = bridge.features(captions[:1] * CAPTIONS), teacher.features(captions[:1] * CAPTIONS)
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter:
        step()
    # A fused kernel computes the scores once more in the backward pass.
    assert counter.get_total_flops() <= planned.step.flops() <= 1.15 * counter.get_total_flops()
    assert planned.step.peak == pytest.approx(allocated(step), rel=0.15)
    kept = objective.queries.values() if match == "attention" else [objective.latents]  # type: ignore[attr-defined]
    assert planned.kept == pytest.approx(sum(each.nbytes for each in kept), rel=0.05)


def test_every_objective_is_planned_for_a_folder_without_weights(tmp_path: Path) -> None:
    pipeline("sd3").save_pretrained(tmp_path)
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    costs = {}
    for match in ("blocks", "prediction", "closed_form"):
        recipe = aligned(str(tmp_path), match)
        costs[match] = alignment_cost(build_meta_bridge(recipe), recipe, CAPTIONS, None, "cuda")
    blocks, prediction, solved = costs.values()
    assert blocks is not None
    assert prediction is not None
    assert solved is not None
    assert [part.name for part in blocks.parts] == [f"own text_encoder{end}" for end in ("", "_2", "_3")]
    assert blocks.step is not None
    assert prediction.step is not None
    assert blocks.step.flops() == pytest.approx(prediction.step.flops(), rel=0.1)
    assert blocks.drawing is None, "the data has pictures"
    assert prediction.drawing is not None, "it follows sampling"
    assert solved.step is None
    assert solved.solving is not None
    assert solved.step_peak < blocks.step_peak, "gradients cross no denoiser"
    assert blocks.can_unload == (True, True)


@pytest.mark.slow
def test_an_alignment_without_calls_of_the_denoiser_does_not_count_it(tmp_path: Path) -> None:
    """A recipe that only aligns has no rows of a training, and fits if its alignment does."""
    pipeline("sd").save_pretrained(tmp_path)
    found = {}
    for match, held_out in (("attention", 4), ("closed_form", 4), ("closed_form", 0)):
        recipe = with_changes(
            aligned(str(tmp_path), match, held_out=held_out),
            {"lora": {"vision": None}, "training": {"steps": 0, "preview_every": 0}},
        )
        found[match, held_out] = make_plan(recipe, GPUS["l4"], PlanOptions(tokens=20))
    called, measured, solved = (plan.alignment for plan in found.values())
    assert called is not None
    assert measured is not None
    assert solved is not None
    vision = sum(part.bytes for part in found["attention", 4].parts if part.name in VISION_PARTS)
    assert called.memory.weights == measured.memory.weights == solved.memory.weights + vision
    assert solved.hours < measured.hours, "nobody draws noised latents"
    plan = found["closed_form", 0]
    tight = make_plan(recipe, GPUS["l4"], PlanOptions(tokens=20, gb=1e-4))
    assert (plan.fits, tight.fits, tight.choices) == (True, False, ())
    table = "\n".join(plan_lines(plan))
    assert "alignment (match closed_form)" in table
    assert "memory per device, batch" not in table


def test_a_step_in_bfloat16_takes_less_memory(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path)
    peaks = []
    for precision in ("float32", "bfloat16"):
        recipe = with_changes(aligned(str(tmp_path), "attention"), {"training": {"precision": precision}})
        cost = alignment_cost(build_meta_bridge(recipe), recipe, CAPTIONS, None, "cuda")
        assert cost is not None
        assert cost.step is not None
        peaks.append(cost.step.peak)
    assert peaks[1] < 0.9 * peaks[0]


@pytest.mark.slow
def test_captions_on_disk_are_read_once(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path)
    seconds = []
    for cache in (None, {"folder": "cache"}):
        recipe = with_changes(
            aligned(str(tmp_path), "attention", feature_cache_gb=0.0), {"training": {"cache": cache}}
        )
        plan = make_plan(recipe, GPUS["l4"], PlanOptions(pictures=100)).alignment
        assert plan is not None
        seconds.append(3600 * plan.hours)
    visits = 1000 * CAPTIONS
    assert seconds[0] - seconds[1] == pytest.approx((visits - 100) * plan.reading_seconds)


def test_an_alignment_has_rows_of_its_own(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path)
    plan = make_plan(aligned(str(tmp_path), "attention"), GPUS["l4"], PlanOptions(pictures=100, price=2.0))
    assert plan.alignment is not None
    assert plan.alignment.captions == 100
    assert plan.alignment.steps == 1000
    assert plan.alignment.hours * 3600 > 1000 * plan.alignment.step_seconds
    assert plan.cost == pytest.approx(2.0 * (plan.hours + plan.alignment.hours))
    table = "\n".join(plan_lines(plan))
    assert "alignment (match attention), 8 captions per step" in table
    assert "all 1,000 steps" in table


def test_text_sides_leave_memory_before_a_step_that_takes_more_than_reading(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path)
    recipe = aligned(str(tmp_path), "prediction")
    bridge, device = build_meta_bridge(recipe), GPUS["l4"]
    cost = alignment_cost(bridge, recipe, CAPTIONS, 20, "cuda")
    assert cost is not None
    assert cost.step_peak > 2 * cost.reading_peak
    parts = model_parts(bridge)
    both = parts[0].bytes + sum(part.bytes for part in cost.parts)
    found = {}
    for name, gigabytes, cache in (
        ("memory", 1.0, None),
        ("none", 0.0, None),
        ("disk", 0.0, {"folder": "x"}),
    ):
        align = {**recipe.training.align.model_dump(), "feature_cache_gb": gigabytes}  # type: ignore[union-attr]
        changed = with_changes(recipe, {"training": {"align": align, "cache": cache}})
        found[name] = estimate_alignment(changed, cost, parts, device, None).memory
    assert found["none"].total - found["memory"].total == both
    assert found["disk"] == found["memory"]
    assert found["none"].weights == found["memory"].weights
