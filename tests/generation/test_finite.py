"""Numbers that are none are said, with where they began; the other pictures of the call are kept."""

from collections.abc import Callable

import numpy as np
import pytest

from lavibridge import Bridge, BridgePipeline
from lavibridge.evaluation.base import Score
from lavibridge.generation.nonfinite_images import NonfiniteImageError

PROMPTS = ("a cat", "a zoo", "a boat")
NAN, INF = float("nan"), float("inf")


def spoil_a_letter(bridge: Bridge) -> None:
    """The embedding of z, which the second prompt has."""
    table = bridge.language.backbone.get_input_embeddings().weight  # type: ignore[operator]
    (token,) = set(bridge.language.tokenizer("z")["input_ids"]) - set(
        bridge.language.tokenizer("a")["input_ids"]
    )  # type: ignore[operator]
    table.data[token] = NAN


def spoil_the_connector(bridge: Bridge) -> None:
    next(bridge.connector.parameters()).data.flatten()[0] = INF


def spoil_the_autoencoder(bridge: Bridge) -> None:
    bridge.vision.autoencoder.decoder.conv_out.bias.data[0] = INF


@pytest.mark.parametrize(
    ("spoil", "named", "lost"),
    [
        (spoil_a_letter, "the language model's features", [1]),
        (spoil_the_connector, "the latents", [0, 1, 2]),
        (spoil_the_autoencoder, "the autoencoder", [0, 1, 2]),
    ],
)
def test_what_is_not_finite_is_an_error(spoil: Callable[[Bridge], None], named: str, lost: list[int]) -> None:
    toys = [{"kind": kind, "source": "random"} for kind in ("llama", "sd")]
    bridge = Bridge.compose(*toys, "linear", None, None)
    drawn = BridgePipeline(bridge)(PROMPTS, num_inference_steps=2, seed=0, batch_size=2).images
    spoil(bridge)
    with pytest.raises(
        NonfiniteImageError, match=f"{len(lost)} of 3 images .* number {lost[0] + 1} .*{named}.*bfloat16"
    ) as raised:
        BridgePipeline(bridge)(PROMPTS, num_inference_steps=2, seed=0, batch_size=2)
    assert list(raised.value.reasons) == lost
    for place, (picture, before) in enumerate(zip(raised.value.pictures, drawn, strict=True)):
        assert (picture is None) == (place in lost)
        assert picture is None or np.array_equal(np.asarray(picture), np.asarray(before))


@pytest.mark.parametrize("clauses", [{}, {"color": 1.0}])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_metric_that_gives_no_number_has_not_scored(value: float, clauses: dict[str, float]) -> None:
    score = Score(value=value, clauses=clauses)
    assert np.isnan(score.value)
    assert score.reason == "the metric's value is not finite"
    odd = Score(value=0.5, clauses={"one": 1.0, "two": (1.0, value)})
    assert (np.isnan(odd.value), odd.clauses) == (True, {})
    assert "'two'" in odd.reason
