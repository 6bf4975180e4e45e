"""Alignment objectives: a teacher explains itself, constant conditioning nothing, and every kind learns."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from toy_pipelines import DECLARED, pipeline

from lavibridge import BridgePipeline
from lavibridge.alignment.base import AlignmentObjective, NoisedLatents
from lavibridge.alignment.closed_form import ClosedForm, Regression, matched_tokens, span_weights
from lavibridge.alignment.parts.variance import unexplained, unexplained_by_query, unexplained_within
from lavibridge.bridge import Bridge
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.recipes.training_section import AlignmentSection, TrainingSection
from lavibridge.training.alignment.aligner import alignment_state, take_step
from lavibridge.world.captions import sample_captioned_scene

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
CAPTIONS = [sample_captioned_scene(3, index).caption for index in range(48)]
CASES: Mapping[str, tuple[str, str]] = {
    "sd attention": ("sd", "attention"),
    "sd blocks": ("sd", "blocks"),
    "sdxl attention": ("sdxl", "attention"),
    "sdxl tokens": ("sdxl", "tokens"),
    "sd3 blocks": ("sd3", "blocks"),
    "sd3 prediction": ("sd3", "prediction"),
    "sd3 tokens": ("sd3", "tokens"),
    "flux blocks": ("flux", "blocks"),
    "flux tokens": ("flux", "tokens"),
    "pixart attention": ("pixart", "attention"),
    "sana attention": ("sana", "attention"),
    "ldm attention": ("ldm", "attention"),
    **{f"{name} blocks": (name, "blocks") for name in DECLARED},
}
QUICK = ("sd attention", "flux blocks", "sd3 prediction", "sdxl tokens")
"""Each objective once, with cross-attention and joint attention, with and without a pooled vector."""


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bridge]:
    """The toy pipeline of each family under its own text side."""
    found = {}
    for name in sorted({family for family, _ in CASES.values()}):
        folder = tmp_path_factory.mktemp(name)
        pipeline(name).save_pretrained(folder)
        length = 20 if name in ("sd3", "flux", "sana", "pixart") else 128 if name in DECLARED else None
        found[name] = BridgePipeline.native(str(folder), device="cpu", max_sequence_length=length).bridge
    return found


def prepared(match: str, student: Bridge, teacher: Bridge) -> AlignmentObjective:
    kind = registry.load_kind("alignment", match)
    objective: AlignmentObjective = kind(kind.Config())
    noised = []
    if objective.needs_latents:
        generator = torch.Generator().manual_seed(0)
        shape = teacher.vision.latent_shape(*[teacher.vision.unit * 4] * 2)
        t = teacher.vision.times[torch.linspace(400, 990, 8).long()]
        noised = [
            NoisedLatents(
                latents=torch.randn(8, *shape, generator=generator), t=t, prompts=tuple(CAPTIONS[:8])
            )
        ]
    objective.prepare(student, teacher, noised)
    return objective


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("tokens")])
def test_the_teacher_explains_itself_and_one_prompt_for_all_explains_nothing(
    case: str, natives: dict[str, Bridge]
) -> None:
    family, match = CASES[case]
    own = natives[family]
    objective = prepared(match, own, own)
    chosen = objective.choose(24, torch.Generator().manual_seed(0))
    with torch.no_grad():
        read = own.features(CAPTIONS[:24])
        same = TextFeatures.pad([read.split()[0]] * 24)
        assert float(objective.loss(own, own, read, read, chosen)) < 1e-6
        constant = float(objective.loss(own, own, same, read, chosen))
    assert 0.7 < constant < 4, constant


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in CASES]
)
def test_the_connector_learns_what_is_compared(case: str, natives: dict[str, Bridge]) -> None:
    family, match = CASES[case]
    teacher = natives[family]
    latents = teacher.condition([""]).tokens.shape[1] if match == "tokens" else 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = Bridge.compose(
            {"kind": "llama", "source": "mini-llama"},
            teacher.vision,
            {"kind": "resampler", "blocks": 1, "latents": latents},
            None,
            None,
        ).eval()
    objective = prepared(match, student, teacher)
    settings = TrainingSection(steps=1, align=AlignmentSection(lr=1e-2))
    state = alignment_state(student, AlignmentSection(lr=1e-2))
    losses = []
    with torch.no_grad():
        features, own = student.features(CAPTIONS), teacher.features(CAPTIONS)
    for step in range(60):
        chosen = objective.choose(len(CAPTIONS), torch.Generator().manual_seed(step))
        losses.append(
            take_step(state, settings, objective.loss(student, teacher, features, own, chosen), step)[0]
        )
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0], losses[::10]
    if teacher.vision.spec.pooled is not None:
        with torch.no_grad():
            made, target = student.connector(features, objective.t[chosen]).pooled, own.pooled
        assert made is not None
        assert target is not None
        assert float(unexplained(made, target, over=(0,))) < 0.9


def test_variance_within_groups_leaves_out_what_the_latents_change() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(500).repeat_interleave(4)
    of_latents = 10 * torch.randn(500, 3, generator=generator)[groups]
    of_captions = torch.randn(2000, 3, generator=generator)
    target = of_latents + of_captions
    assert float(unexplained_within(of_latents, target, groups)) == pytest.approx(1, abs=0.05)
    assert float(unexplained_within(target, target, groups)) == 0
    half = of_latents + 0.5 * of_captions
    assert float(unexplained_within(half, target, groups)) == pytest.approx(0.25, abs=0.02)
    assert float(unexplained(half, target, over=(0,))) < 0.01  # the latents hide it


def test_the_deviation_of_single_queries_counts_beside_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(64).repeat_interleave(4)
    mentioned = torch.randn(256, 1, 8, generator=generator)  # large, and the same for every query
    bound = 0.1 * torch.randn(256, 6, 8, generator=generator)
    bound -= bound.mean(dim=1, keepdim=True)
    target = mentioned + bound
    parts = [float(each) for each in unexplained_by_query(mentioned.expand_as(target), target, groups)]
    assert parts == [pytest.approx(0, abs=1e-6), pytest.approx(1, abs=0.1)]
    assert float(unexplained_within(mentioned.expand_as(target), target, groups)) < 0.02
    parts = [float(each) for each in unexplained_by_query(0.5 * mentioned + bound, target, groups)]
    assert parts == [pytest.approx(0.25, abs=0.05), pytest.approx(0, abs=1e-6)]
    rounded = [(each + 8).bfloat16() for each in (0.5 * mentioned + 0.9 * bound, target)]
    exact = unexplained_by_query(*(each.float() for each in rounded), groups)
    assert [float(each) for each in unexplained_by_query(*rounded, groups)] == [float(each) for each in exact]


def test_the_regression_is_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(400, 5, generator=generator), torch.randn(5, 3, generator=generator)
    y = x @ weight + torch.tensor([1.0, -2.0, 3.0])
    regression = Regression()
    for start in range(0, 400, 100):
        regression.add(x[start : start + 100], y[start : start + 100])
    layer = torch.nn.Linear(5, 3)
    with torch.no_grad():
        regression.solve(layer, ridge=1e-9)
    assert torch.allclose(layer.weight.T, weight, atol=1e-5)
    assert torch.allclose(layer.bias, torch.tensor([1.0, -2.0, 3.0]), atol=1e-5)


def test_tokens_are_matched_by_the_characters_that_they_share() -> None:
    # "a redcircle":  <s> a redcircle </s>   against   <s> a red circle </s> <pad>
    weights = span_weights(
        [(0, 0), (0, 1), (2, 11), (0, 0)], [(0, 0), (0, 1), (2, 5), (5, 11), (0, 0), (0, 0)]
    )
    expected = [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 3, 6, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert weights.tolist() == expected


@pytest.mark.parametrize("connector", ["linear", "mlp", "lavi"])
def test_the_closed_form_solves_tokens_and_pooled_vector(connector: str, natives: dict[str, Bridge]) -> None:
    teacher = natives["sdxl"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = Bridge.compose(
            {"kind": "llama", "source": "mini-llama"}, teacher.vision, connector, None, None
        ).eval()
    solver = ClosedForm(ClosedForm.Config())

    def batches() -> Any:
        for start in range(0, 48, 16):
            captions = CAPTIONS[start : start + 16]
            yield captions, student.features(captions), teacher.features(captions)

    def errors() -> list[float]:
        """The fvu of the tokens, each against those with the same characters, and of the pooled vector."""
        with torch.no_grad():
            features, own = student.features(CAPTIONS), teacher.features(CAPTIONS)
            made, target = student.connector(features), teacher.connector(own)
            expected, is_matched = matched_tokens(student, teacher, CAPTIONS, features, target)
        assert is_matched.all()
        assert made.pooled is not None
        assert target.pooled is not None
        found = made.tokens[features.mask]
        return [
            float(unexplained(found, expected, (0,))),
            float(unexplained(made.pooled, target.pooled, (0,))),
        ]

    before = errors()
    solver.fit(student, teacher, batches)
    after = errors()
    assert after[0] < min(0.7, 0.5 * before[0]), (before, after)
    assert after[1] < min(0.5, 0.5 * before[1]), (before, after)
