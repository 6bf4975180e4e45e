"""A translator swaps the language model of a trained bridge and leaves its connector as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lavibridge import Bridge, BridgePipeline
from lavibridge.alignment.base import NoisedLatents
from lavibridge.cli.main import app
from lavibridge.connectors.translator import Translator
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.recipes.alignment import alignment_recipe
from lavibridge.recipes.recipe import load_recipe
from lavibridge.recipes.training_section import AlignmentSection, TrainingSection
from lavibridge.training.alignment.aligner import alignment_state, take_step
from lavibridge.training.alignment.objective import check_alignable
from lavibridge.world.captions import sample_captioned_scene

CAPTIONS = [sample_captioned_scene(3, index).caption for index in range(24)]
pytestmark = pytest.mark.usefixtures("one_thread")
RESAMPLER = {"kind": "resampler", "blocks": 1, "latents": 8, "read": "norm_mean"}


def trained(vision: Any, connector: Any = RESAMPLER) -> Bridge:
    """A bridge whose conditioning depends on the prompt, as if it were trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bridge.compose("mini-llama", vision, connector, None, None).eval()


@pytest.mark.parametrize("connector", [RESAMPLER, {"kind": "lavi"}], ids=["resampler", "lavi"])
def test_the_translation_learns_and_the_connector_stays(connector: dict[str, Any]) -> None:
    teacher = trained({"kind": "sd", "source": "random"}, connector)
    section = {"kind": "translator", "width": teacher.language.spec.width, "then": connector}
    student = Bridge.compose("mini-t5-small", teacher.vision, section, None, None).eval()
    assert isinstance(student.connector, Translator)
    student.connector.continue_from(teacher.connector)
    kind = registry.load_kind("alignment", "attention")
    objective = kind(kind.Config())
    t = teacher.vision.times[torch.linspace(400, 990, 8).long()]
    shape = teacher.vision.latent_shape(*[teacher.vision.default_size] * 2)
    latents = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    objective.prepare(student, teacher, [NoisedLatents(latents=latents, t=t, prompts=tuple(CAPTIONS[:8]))])
    state, settings = (
        alignment_state(student, AlignmentSection(lr=1e-2)),
        TrainingSection(steps=1, align=AlignmentSection()),
    )
    with torch.no_grad():
        features, own = student.features(CAPTIONS), teacher.features(CAPTIONS)
    losses = []
    for step in range(40):
        chosen = objective.choose(len(CAPTIONS), torch.Generator().manual_seed(step))
        loss = objective.loss(student, teacher, features, own, chosen)
        losses.append(take_step(state, settings, loss, step)[0])
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0], losses[::10]
    kept = student.connector.then.state_dict()
    assert set(kept) == {name for name in teacher.connector.state_dict() if not name.startswith("read.")}
    assert all(torch.equal(each, kept[name]) for name, each in teacher.connector.state_dict().items())


@pytest.mark.parametrize("match", ["attention", "tokens"])
def test_the_command_swaps_the_language_model_of_a_saved_bridge(match: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    trained("mini-sd").save_pretrained(old)
    settings = ["data={kind: world, scenes: 40}", "training.validation=null"]
    align = (
        "training.align={steps: 3, batch: 4, captions: 24, held_out: 4, noised_latents: 4, lr: 0.01, "
        f"match: {match}}}"
    )
    names = ["--from", str(old), "--language", "mini-bert", "--translate", "--out", str(new)]
    done = CliRunner().invoke(app, ["align", "quickstart", *settings, align, *names])
    assert done.exception is None, done.output
    rows = [json.loads(line) for line in (new / "align.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3
    swapped = Bridge.from_pretrained(new, device="cpu")
    assert isinstance(swapped.connector, Translator)
    kept = Bridge.from_pretrained(old, device="cpu").connector.state_dict()
    found = swapped.connector.then.state_dict()
    assert all(torch.equal(each, found[name]) for name, each in kept.items())
    assert BridgePipeline(swapped)("a red circle", seed=0, num_inference_steps=2).images


def test_a_translator_that_cannot_be_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", ["connector={kind: translator}"])
    with pytest.raises(RecipeError, match="name the bridge with --from"):
        alignment_recipe(recipe, translate=True)
    with pytest.raises(RecipeError, match="'translator' continues the connector of a trained bridge"):
        check_alignable(alignment_recipe(recipe))
    teacher = trained({"kind": "sd", "source": "random"})
    for then, match in (({"kind": "linear"}, "it is a Resampler"), (RESAMPLER, "size mismatch")):
        section = {"kind": "translator", "width": 7, "then": then}
        student = Bridge.compose("mini-t5-small", teacher.vision, section, None, None)
        with pytest.raises(ModelError, match=match):
            student.connector.continue_from(teacher.connector)
    with pytest.raises(ModelError, match="reads the language model itself"):
        Bridge.compose("mini-t5-small", teacher.vision, {"kind": "translator", "then": {"kind": "query"}})
