"""The benchmarks' metrics on toys: values are those of the rules on what toys say; nothing is left out."""

import math

import pytest

from lavibridge.core import registry
from lavibridge.core.config import validate_config
from lavibridge.core.errors import DataError, ModelError, RecipeError
from lavibridge.evaluation.base import Score, ScoredTask, Task
from lavibridge.evaluation.benchmarks.dsg import (
    DsgQuestion,
    DsgQuestionGraph,
    cascade_dsg,
    cascade_dsg_as_published,
)
from lavibridge.evaluation.benchmarks.geneval import GenEvalObject, GenEvalRequirements
from lavibridge.evaluation.benchmarks.numeracy import ObjectCounts, numeracy_score
from lavibridge.evaluation.benchmarks.prompt_metadata import ComplexMetadata, PhrasesMetadata
from lavibridge.evaluation.benchmarks.soft_tifa import TifaAtom, TifaAtoms, tifa_spellings
from lavibridge.evaluation.benchmarks.spatial import SpatialRelation, spatial_score
from lavibridge.evaluation.benchmarks.totals import total_of_any_picture, total_over_categories
from lavibridge.evaluation.benchmarks.wise import WISE_WEIGHTS, WiseExplanation
from lavibridge.evaluation.metrics.base import ImageMetric

NEAR = SpatialRelation(first="cat", where="near", second="dog")
TRUTHS: dict[str, object] = {
    "b_vqa": PhrasesMetadata(phrases=("a red cat", "a dog")),
    "spatial": NEAR,
    "numeracy": ObjectCounts(things={"cat": 2, "dog": 1}),
    "three_in_one": ComplexMetadata(
        phrases=("a cat",), relation=NEAR, bare="a cat near a dog", is_spatial=True, is_action=True
    ),
    "geneval": GenEvalRequirements(include=(GenEvalObject(name="cat", count=1, color="red"),)),
    "dpg": DsgQuestionGraph(
        questions=(
            DsgQuestion(number=1, text="Is there a cat?", category="entity"),
            DsgQuestion(number=2, text="Is the cat red?", category="attribute", parents=(1,)),
        ),
        opens_file=True,
    ),
    "soft_tifa": TifaAtoms(
        atoms=(
            TifaAtom(question="How many cats?", answer="two", skill="count"),
            TifaAtom(question="Are there cats?", answer="Yes", skill="object"),
        )
    ),
    "wise": WiseExplanation(text="A cat is a cat."),
    "vqa_score": None,
}
OPTIONS = {
    "b_vqa": {"model": "blip"},
    "spatial": {"detector": "owl"},
    "numeracy": {"detector": "owl"},
    "three_in_one": {"model": "blip", "detector": "owl", "clip": "clip"},
    "geneval": {"detector": "yolos", "clip": "clip"},
    "dpg": {"model": "llava", "dtype": "float32"},
    "soft_tifa": {"model": "qwen", "dtype": "float32"},
    "wise": {"model": "qwen", "dtype": "float32"},
    "vqa_score": {"model": "llava", "dtype": "bfloat16"},
}


@pytest.fixture
def make(toy):
    def made(kind: str, **options: object) -> ImageMetric:
        models = {
            name: toy(value) if name in ("model", "detector", "clip") else value
            for name, value in OPTIONS[kind].items()
        }
        metric = registry.load_kind("evaluation.metrics", kind)
        found: ImageMetric = metric(validate_config(metric.Config, {**models, **options}, kind))
        return found

    return made


def task(metadata: object, prompt: str = "a red cat and a dog", category: str = "x", seed: int = 0) -> Task:
    return Task(category=category, prompt=prompt, seed=seed, metadata=metadata, file="x.png")


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_metric_scores_every_picture_and_says_what_it_is(kind, make, pictures):
    metric = make(kind)
    asked = task(TRUTHS[kind])
    metric.check([asked])
    scores = metric.score(pictures, [asked, asked])
    assert len(scores) == 2
    assert all(-1 <= score.value <= 1 for score in scores)
    assert metric.score(pictures[1:], [asked])[0].value == pytest.approx(scores[1].value, abs=1e-5)
    card = metric.card()
    assert card["kind"] == kind
    assert card["resize"]
    assert not set(card["options"]) & {"model", "detector", "clip"}
    networks = [card[name] for name in ("model", "detector", "clip") if name in card]
    assert networks
    assert all(len(network["id"]) == 64 for network in networks)
    assert "/" not in str(networks)
    metric.free()
    assert metric.score(pictures[1:], [asked])[0].value == pytest.approx(scores[1].value, abs=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in OPTIONS if kind != "vqa_score"])
def test_prompts_of_other_benchmarks_are_refused_before_anything_is_drawn(kind, make):
    with pytest.raises(DataError, match="carries NoneType"):
        make(kind).check([task(None)])


@pytest.mark.parametrize("kind", OPTIONS)
def test_absent_models_are_said_at_once(kind, tmp_path):
    metric = registry.load_kind("evaluation.metrics", kind)
    absent = {name: str(tmp_path / "absent") for name in OPTIONS[kind] if name != "dtype"}
    with pytest.raises(ModelError, match="no model folder"):
        metric(validate_config(metric.Config, absent, kind))


def test_b_vqa_is_the_product_over_the_first_eight_phrases(make, pictures):
    metric = make("b_vqa")
    [score] = metric.score(pictures[:1], [task(TRUTHS["b_vqa"])])
    factors = score.detail["yes"]
    assert list(factors) == ["a red cat?", "a dog?"]
    assert score.value == pytest.approx(math.prod(factors.values()))
    many = PhrasesMetadata(phrases=tuple(f"{'a ' * i}cat" for i in range(10)))
    assert len(metric.score(pictures[:1], [task(many)])[0].detail["yes"]) == 8


def test_detecting_metrics_follow_their_rules(make, pictures):
    for kind, rule in (("spatial", _spatial), ("numeracy", _numeracy)):
        metric = make(kind)
        [score] = metric.score(pictures[:1], [task(TRUTHS[kind])])
        boxes = metric.detector.detect(pictures[:1], [["cat", "dog"]], metric.config.threshold)[0]
        assert score.value == pytest.approx(rule(boxes))
        assert len(score.detail["boxes"]) == len(boxes) > 0


def _spatial(boxes):
    return spatial_score(NEAR, boxes, 90, 60)


def _numeracy(boxes):
    return numeracy_score(ObjectCounts(things={"cat": 2, "dog": 1}), boxes)[0]


def test_what_a_detector_does_not_know_is_not_scored(make, toy, pictures):
    zebra = SpatialRelation(first="cat", where="near", second="zebra")
    [score] = make("spatial", detector=toy("yolos")).score(pictures[:1], [task(zebra)])
    assert math.isnan(score.value)
    assert "'zebra'" in score.reason
    counts = ObjectCounts(things={"zebra": 2})
    assert make("numeracy", detector=toy("yolos")).score(pictures[:1], [task(counts)])[0].reason
    asked = GenEvalRequirements(include=(GenEvalObject(name="zebra", count=1),))
    assert make("geneval").score(pictures[:1], [task(asked)])[0].reason
    asked_for = ComplexMetadata(
        phrases=("a cat",), relation=zebra, bare="a cat", is_spatial=True, is_action=True
    )
    assert make("three_in_one", detector=toy("yolos")).score(pictures[:1], [task(asked_for)])[0].reason


def test_three_in_one_is_the_mean_of_what_the_prompt_is_about(make, pictures):
    metric = make("three_in_one")
    parts = {}
    for is_spatial, is_action in ((True, False), (False, True), (True, True)):
        metadata = ComplexMetadata(
            phrases=("a cat",), relation=None, bare="a cat", is_spatial=is_spatial, is_action=is_action
        )
        [score] = metric.score(pictures[:1], [task(metadata)])
        expected = (
            {"attributes"} | ({"spatial"} if is_spatial else set()) | ({"action"} if is_action else set())
        )
        assert set(score.clauses) == expected
        assert score.value == pytest.approx(sum(score.clauses.values()) / len(expected))
        parts |= score.clauses
    assert parts["spatial"] == 0  # no relation that the rule knows


def test_geneval_counts_with_surer_boxes(make, pictures):
    thing = GenEvalObject(name="cat", count=1)
    plain, counting = (
        GenEvalRequirements(include=(thing,)),
        GenEvalRequirements(include=(thing,), is_counting=True),
    )
    sure, unsure = make("geneval", threshold=0.0, counting_threshold=0.999), make("geneval", threshold=0.999)
    assert sure.score(pictures[:1], [task(plain)])[0].value == 1
    assert sure.score(pictures[:1], [task(counting)])[0].value == 0
    [missing] = unsure.score(pictures[:1], [task(plain)])
    assert missing.clauses == {"there": 0}
    assert missing.detail["wrong"] == ["expected 1 cat, found 0"]


def scored(category: str, prompt: str, *values: float) -> list[ScoredTask]:
    return [
        ScoredTask(
            category=category,
            prompt=prompt,
            seed=i,
            score=Score(value=value, reason="lost" if math.isnan(value) else ""),
        )
        for i, value in enumerate(values)
    ]


def test_geneval_totals_weigh_tasks_alike(make):
    found = [*scored("one", "a", 1.0, 1.0), *scored("two", "b", 0.0, 1.0), *scored("two", "c", 0.0, math.nan)]
    mean = total_over_categories(found)
    assert mean.mean == pytest.approx((1 + 1 / 3) / 2)
    assert (mean.n, mean.unscored) == (5, 1)
    assert mean.low < mean.mean < mean.high
    assert total_of_any_picture(found).mean == pytest.approx(2 / 3)
    assert set(make("geneval").totals(found)) == {"mean of tasks", "any right"}
    nothing = total_over_categories(scored("one", "a", math.nan))
    assert (nothing.n, nothing.unscored) == (0, 1)


def test_dpg_takes_back_what_hangs_on_a_no(make, pictures):
    metric, metadata = make("dpg"), TRUTHS["dpg"]
    [score] = metric.score(pictures[:1], [task(metadata)])
    probabilities = metric.image_text_model.yes_probabilities(
        pictures[0], ["Is there a cat? Answer yes or no.", "Is the cat red? Answer yes or no."]
    )
    yes = {i: chance >= 0.5 for i, chance in enumerate(probabilities, 1)}
    expected = cascade_dsg(metadata.questions, yes)
    assert score.value == sum(expected.values()) / 2
    assert score.detail["yes"] == {"entity": [float(yes[1])], "attribute": [float(yes[2])]}


def test_dpg_questions_that_hang_on_nothing_are_not_scored(make, pictures):
    lost = DsgQuestionGraph(
        questions=(DsgQuestion(number=2, text="Is it red?", category="color", parents=(1,)),)
    )
    [score] = make("dpg").score(pictures[:1], [task(lost)])
    assert "depends on question 1, which does not exist" in score.reason
    assert "script stops" in make("dpg", paper_compat=True).score(pictures[:1], [task(lost)])[0].reason


def test_dpg_as_published_keeps_its_mistakes(make, pictures):
    metric = make("dpg", paper_compat=True)
    [lost] = metric.score(pictures[:1], [task(TRUTHS["dpg"])])
    assert "script stops" in lost.reason  # its second question hangs on the first line of the file
    alone = DsgQuestionGraph(questions=TRUTHS["dpg"].questions[:1], opens_file=True)
    assert "reads no question" in metric.score(pictures[:1], [task(alone)])[0].reason
    later = DsgQuestionGraph(questions=TRUTHS["dpg"].questions)
    [score] = metric.score(pictures[:1], [task(later)])
    yes = {1: bool(score.detail["yes"]["entity"][0]), 2: bool(score.detail["yes"]["attribute"][0])}
    values = cascade_dsg_as_published(later.questions, yes)
    assert values is not None
    assert score.value == sum(values.values()) / 2


def test_dpg_categories_are_of_all_pictures_or_as_published_of_the_last(make):
    answers = [{"entity": [1.0, 0.0]}, {"entity": [0.0, 0.0], "global": [1.0]}]
    found = [
        ScoredTask(category="dense", prompt="a", seed=i, score=Score(value=0.5, detail={"yes": each}))
        for i, each in enumerate(answers)
    ]
    whole = make("dpg").totals(found)
    assert {name: (each.mean, each.n) for name, each in whole.items()} == {
        "entity": (0.25, 4),
        "global": (1, 1),
    }
    last = make("dpg", paper_compat=True).totals(found)
    assert {name: (each.mean, each.n) for name, each in last.items()} == {"entity": (0, 2), "global": (1, 1)}


def test_soft_tifa_asks_for_one_word_in_any_spelling(make, pictures):
    metric = make("soft_tifa")
    [score] = metric.score(pictures[:1], [task(TRUTHS["soft_tifa"])])
    two, yes = metric.image_text_model.answer_probabilities(
        pictures[0],
        ["How many cats? Answer in one word.", "Are there cats? Answer in one word."],
        [tifa_spellings("two"), tifa_spellings("Yes")],
    )
    assert score.value == pytest.approx(math.sqrt(two * yes))
    assert score.clauses == {"arithmetic mean": pytest.approx((two + yes) / 2)}
    totals = metric.totals([ScoredTask(category="3 atoms", prompt="a", seed=0, score=score)])
    assert {name: each.mean for name, each in totals.items()} == pytest.approx({"count": two, "object": yes})


def test_wise_reads_the_explanation_and_decides(make, pictures):
    metric = make("wise", question="Is {explanation} in {prompt}?")
    explained = task(WiseExplanation(text="a {prompt}, a carnation"), prompt="a {explanation}")
    [score] = metric.score(pictures[:1], [explained])
    asked = ["Is a {prompt}, a carnation in a {explanation}?"] * 2
    one, zero = metric.image_text_model.answer_probabilities(pictures[0], asked, [("1", " 1"), ("0", " 0")])
    assert score.value == float(one >= zero)
    assert score.detail == {"probability": pytest.approx(one / (one + zero))}
    with pytest.raises(RecipeError, match="exactly once each"):
        make("wise", question="Is it {prompt}?")


@pytest.mark.parametrize(
    ("by_category", "overall"),
    [  # rows of the published leaderboard: QwenImage, FLUX.1-dev and SD-XL-0.9
        ((0.6275, 0.5250, 0.5583, 0.3417, 0.4833, 0.2500), 0.5100),
        ((0.5225, 0.4000, 0.5333, 0.1750, 0.3750, 0.2417), 0.4160),
        ((0.4925, 0.3667, 0.2417, 0.2667, 0.3333, 0.1833), 0.3640),
    ],
)
def test_wises_overall_score_is_the_published_one(by_category, overall, make):
    """Judged answers of a whole run, as many of each category right as its published share says."""
    found = []
    for category, share in zip(WISE_WEIGHTS, by_category, strict=True):
        count = 400 if category == "culture" else 120
        right = round(share * count)
        assert right / count == pytest.approx(share, abs=1e-4)
        found += [scored(category, f"{each}", float(each < right)) for each in range(count)]
    [(name, total)] = make("wise").totals([each for some in found for each in some]).items()
    assert (name, total.n, round(total.mean, 4)) == ("overall", 1000, overall)
    assert total.low < overall < total.high
    one_less = [each for some in found for each in some if each.category != "time"]
    assert make("wise").totals(one_less) == {}


def test_vqa_score_puts_any_prompt_into_its_question(make, pictures):
    metric = make("vqa_score", dtype="float32")
    prompts = ["a {} cat", "a cat, a/dog\n😀", "x" * 300]
    scores = metric.score([pictures[0]] * 3, [task(None, prompt=prompt) for prompt in prompts])
    asked = ['Does this figure show "a {} cat"? Please answer yes or no.']
    assert scores[0].value == pytest.approx(
        metric.image_text_model.answer_probabilities(pictures[0], asked, [("Yes",)])[0]
    )
    assert len({score.value for score in scores}) == 3
    with pytest.raises(RecipeError, match="once"):
        make("vqa_score", question="Is it good?")
