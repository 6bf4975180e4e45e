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
from lavibridge.plan.devices import GPUS
from lavibridge.plan.meta_model import build_meta_bridge
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
    assert solved.peak < blocks.peak, "gradients cross no denoiser"


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
