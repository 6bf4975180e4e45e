"""Scores of models that pair pictures with texts: hand-computed on tiny models of the real classes."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from lavibridge.core.errors import ModelError
from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.dual_encoder import DualEncoder
from lavibridge.evaluation.metrics.aesthetics import fold_aesthetics_head
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.evaluation.networks import PretrainedNetwork
from lavibridge.evaluation.suite import open_suite_metrics

PROMPTS = (
    "a red circle",
    "a blue square. a small green star. three yellow rings! a red circle and a blue square, a green star",
    "",
    "naïve 🙂 a/b, c\nred\u2028circle",
    "red circle " * 900,
)


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20 + i, 40, 3), dtype=np.uint8)) for i in range(count)]


def scores(options: dict[str, Any]) -> list[Score]:
    [metric] = open_suite_metrics([options], [], ())
    assert isinstance(metric, ImageMetric)
    tasks = [Task(category="x", prompt=prompt, seed=0, file="x") for prompt in PROMPTS]
    found = metric.score(pictures(len(PROMPTS)), tasks)
    metric.free()
    one = [metric.score([p], [t])[0].value for p, t in zip(pictures(len(PROMPTS)), tasks, strict=True)]
    assert [each.value for each in found] == pytest.approx(one, abs=1e-5)  # whatever stands beside it
    return found


def test_the_clip_score_is_the_models_own_cosine_and_says_what_it_cut(toy_clip: Path) -> None:
    found = scores({"kind": "clip_score", "model": str(toy_clip)})
    network = PretrainedNetwork(str(toy_clip))
    for place, prompt in enumerate(PROMPTS):
        ids = network.tokenizer([prompt], truncation=True, max_length=16, return_tensors="pt")
        pixels = network.processor(images=[pictures(5)[place]], return_tensors="pt")
        with torch.no_grad():
            output = network.model(**ids, **pixels)
        cosine = float(output.logits_per_image[0, 0] / network.model.logit_scale.exp())
        assert found[place].value == pytest.approx(cosine, abs=1e-5)
        own = len(network.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        assert found[place].clauses["cut"] == pytest.approx(max(0, own - 14) / own if own else 0)
    assert found[0].clauses["cut"] == 0
    assert found[4].clauses["cut"] > 0.99


def test_segments_are_all_of_a_long_prompt_and_short_prompts_are_themselves(toy_clip: Path) -> None:
    cut = scores({"kind": "clip_score", "model": str(toy_clip)})
    whole = scores({"kind": "clip_score", "model": str(toy_clip), "long": "segments"})
    assert whole[0].value == pytest.approx(cut[0].value, abs=1e-6)
    assert whole[1].value != pytest.approx(cut[1].value, abs=1e-6)
    assert all(each.clauses["cut"] == 0 for each in whole)
    dual_encoder = DualEncoder(PretrainedNetwork(str(toy_clip)))
    parts = dual_encoder.segments(PROMPTS[1])
    assert len(parts) > 1
    assert " ".join(parts) == PROMPTS[1]
    assert all(dual_encoder.share_cut(part) == 0 for part in parts)
    seen = dual_encoder.pictures(pictures(2)[1:])
    expected = float((seen @ dual_encoder.texts(parts).T).mean())
    assert whole[1].value == pytest.approx(expected, abs=1e-5)


def test_siglip_is_the_models_own_in_all_three_modes(toy_siglip: Path) -> None:
    network = PretrainedNetwork(str(toy_siglip))
    ids = network.tokenizer(
        list(PROMPTS), padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )["input_ids"]
    pixels = network.processor(images=pictures(5), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = network.model(input_ids=ids, pixel_values=pixels).logits_per_image.diagonal()
    base = {"kind": "siglip_score", "model": str(toy_siglip)}
    found = {mode: scores({**base, "mode": mode}) for mode in ("cosine", "logit", "sigmoid")}
    assert [each.value for each in found["logit"]] == pytest.approx(logits.tolist(), abs=1e-4)
    assert [each.value for each in found["sigmoid"]] == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)
    scale, bias = float(network.model.logit_scale.exp()), float(network.model.logit_bias)
    cosines = [(each.value - bias) / scale for each in found["logit"]]
    assert [each.value for each in found["cosine"]] == pytest.approx(cosines, abs=1e-5)


def test_siglip_2_reads_lower_case(toy_siglip: Path) -> None:
    lower = DualEncoder(PretrainedNetwork(str(toy_siglip)), to_limit=True, lower=True)
    assert torch.equal(lower.texts(["A Red CIRCLE"]), lower.texts(["a red circle"]))


def test_the_pick_score_is_the_logit(toy_clip: Path) -> None:
    cosines = scores({"kind": "clip_score", "model": str(toy_clip)})
    scale = math.exp(float(PretrainedNetwork(str(toy_clip)).model.logit_scale))
    found = scores({"kind": "pick_score", "model": str(toy_clip)})
    assert [each.value for each in found] == pytest.approx([scale * c.value for c in cosines], rel=1e-4)


def test_swapping_the_texts_of_clip_iqa_turns_it_round(toy_clip: Path) -> None:
    base = {"kind": "clip_iqa", "model": str(toy_clip)}
    good = scores({**base, "pairs": [["red", "blue"]]})
    bad = scores({**base, "pairs": [["blue", "red"]]})
    for one, other in zip(good, bad, strict=True):
        assert one.value + other.value == pytest.approx(1, abs=1e-5)
    both = scores({**base, "pairs": [["red", "blue"], ["small", "large"]]})
    assert both[0].value == pytest.approx(np.mean(list(both[0].clauses.values())))
    assert both[0].clauses["red"] == pytest.approx(good[0].value, abs=1e-5)
    dual_encoder = DualEncoder(PretrainedNetwork(str(toy_clip)))
    cosines = dual_encoder.pictures(pictures(5)) @ dual_encoder.texts(["red", "blue"]).T
    expected = (100 * cosines).softmax(-1)[:, 0].tolist()
    assert [each.value for each in good] == pytest.approx(expected, abs=1e-4)


def test_the_aesthetic_head_folded_is_the_head_in_layers(toy_clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = (12, 10, 8, 4, 3, 1)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    numbers = (0, 2, 4, 6, 7)
    state = {
        f"layers.{n}.{name}": v
        for n, layer in zip(numbers, layers, strict=True)
        for name, v in layer.state_dict().items()
    }
    head = tmp_path / "head.safetensors"
    save_file(state, head)
    found = scores({"kind": "aesthetics", "model": str(toy_clip), "head": str(head)})
    with torch.no_grad():
        expected = nn.Sequential(*layers)(
            DualEncoder(PretrainedNetwork(str(toy_clip))).pictures(pictures(5))
        )[:, 0]
    assert [each.value for each in found] == pytest.approx(expected.tolist(), abs=1e-6)

    save_file({**state, "layers.1.slope": torch.zeros(1)}, head)
    with pytest.raises(ModelError, match="not a head of linear layers"):
        fold_aesthetics_head(head)
    with pytest.raises(ModelError, match="improved-aesthetic-predictor"):
        open_suite_metrics(
            [{"kind": "aesthetics", "model": str(toy_clip), "head": "nowhere.safetensors"}], [], ()
        )


def test_cards_name_the_weights_and_no_path(toy_clip: Path) -> None:
    [metric] = open_suite_metrics([{"kind": "clip_score", "model": str(toy_clip)}], [], ())
    card = metric.card()
    assert card["model"]["model"] == "toy-clip"
    assert len(card["model"]["id"]) == 64
    assert str(toy_clip) not in str(card)


def test_a_model_that_pairs_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="not a dual encoder"):
        open_suite_metrics([{"kind": "clip_score", "model": "mini-resnet"}], [], ())
