"""A plan counts the image model's own text encoders and the teacher's passes, from configurations alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toy_pipelines import DECLARED, pipeline

from lavibridge import BridgePipeline
from lavibridge.plan.devices import GPUS
from lavibridge.plan.estimate import estimate_costs
from lavibridge.plan.meta_model import build_meta_bridge
from lavibridge.plan.plan import PlanOptions, count_readings, make_plan
from lavibridge.plan.table import plan_lines
from lavibridge.plan.text_side_passes import teacher_text_side_cost
from lavibridge.recipes.recipe import Recipe, make_recipe

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
FAMILIES = ("sdxl", "sd3", "flux", "pixart", "sana", *DECLARED)
DEEP = ("Flux2Pipeline", "Flux2KleinPipeline")
"""Toys of 31 layers, because their pipelines read the 30th."""


def taught(folder: Path, guidance: float = 2.0, **training: Any) -> Recipe:
    return make_recipe(
        {
            "language": {"kind": "llama", "source": "random"},
            "vision": {"source": str(folder)},
            "connector": {"kind": "lavi"},
            "lora": {"language": None, "vision": {"rank": 4}},
            "data": {"kind": "world", "scenes": 8, "size": 64},
            "training": {"steps": 10, "batch": 2, "teacher": {"guidance": guidance}, **training},
        }
    )


def without_weights(folder: Path) -> None:
    """Leave the configurations only."""
    for path in folder.rglob("*"):
        is_tokenizer = path.parent.name.startswith("tokenizer") and path.name != "tokenizer_config.json"
        if path.suffix == ".safetensors" or (path.is_file() and is_tokenizer):
            path.unlink()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in DEEP else []) for name in FAMILIES],
)
def test_the_plan_of_a_folder_without_weights_is_that_of_the_whole(name: str, tmp_path: Path) -> None:
    """Parameters, and the arithmetic of reading and of the teacher's passes, as the real models have them."""
    pipe = pipeline(name)
    pipe.save_pretrained(tmp_path)
    own = BridgePipeline.native(tmp_path, device="cpu").bridge
    without_weights(tmp_path)
    recipe = taught(tmp_path)
    bridge = build_meta_bridge(recipe)
    planned = teacher_text_side_cost(bridge, recipe, 2, None, "cpu")
    assert planned is not None
    encoders = dict(own.language.backbone.named_children())
    assert {part.name: part.frozen for part in planned.parts} == {
        f"own {folder}": sum(weight.numel() for weight in encoder.parameters())
        for folder, encoder in encoders.items()
    }
    captions = ["cat " * 500] * 2
    side = recipe.data.size
    noisy = torch.randn(4, *own.vision.latent_shape(side, side))
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), plain:
        with FlopCounterMode(display=False) as reading:
            features = own.features(captions)
        (empty,) = own.features([""], negative=True).split()
        conditioning = own.connector(type(features).pad([empty, empty, *features.split()]))
        with FlopCounterMode(display=False) as target:
            own.vision.predict(noisy, own.vision.times[torch.tensor([10, 10, 10, 10])], conditioning)
    # The miniature tokenizer makes more tokens of SANA's instruction than are assumed.
    share = 0.6 if name == "sana" else 0.02
    assert planned.reading.flops() == pytest.approx(reading.get_total_flops(), rel=share)
    # A plan knows no chat template, which a toy's tokenizer of bytes makes long.
    share = 0.05 if name in DECLARED else 0.02
    assert planned.target.flops() == pytest.approx(target.get_total_flops(), rel=share)


def test_a_teacher_takes_time_and_memory_in_rows_of_its_own(tmp_path: Path) -> None:
    pipeline("sdxl").save_pretrained(tmp_path)
    plan = make_plan(taught(tmp_path), GPUS["l4"], PlanOptions(pictures=5))
    assert plan.flops["teacher"] == pytest.approx(2 * plan.flops["denoiser"], rel=0.1)
    assert plan.memory.weights == sum(part.bytes for part in plan.parts)
    assert [part.name for part in plan.parts][-2:] == ["own text_encoder", "own text_encoder_2"]
    assert sum(part.bytes for part in plan.parts[:-2]) < plan.drawing, "the own text encoders do not draw"
    assert plan.drawing_offloaded < plan.drawing
    assert plan.reading_seconds
    table = "\n".join(plan_lines(plan))
    assert all(row in table for row in ("own text_encoder_2", "  teacher", "own encoders, one caption"))


def test_one_call_without_guidance_and_captions_that_memory_keeps_are_read_once(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path)
    costs = {}
    for guidance in (1.0, 2.0):
        recipe = taught(tmp_path, guidance)
        costs[guidance] = estimate_costs(recipe, build_meta_bridge(recipe), 2, None, "cpu")
    once, twice = (costs[guidance].teacher for guidance in (1.0, 2.0))
    assert once is not None
    assert twice is not None
    assert twice.target.flops() == pytest.approx(2 * once.target.flops(), rel=0.01)
    assert count_readings(recipe, PlanOptions(pictures=5), costs[2.0]) == 5
    assert count_readings(recipe, PlanOptions(), costs[2.0]) == 20
