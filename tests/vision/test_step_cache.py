"""Steps that reuse the one before: how many, for whom, and that nothing stays behind."""

from collections import Counter

import numpy as np
import pytest

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.errors import ModelError, RecipeError

PROMPTS = ["a cat", "a much longer prompt with a boat in it"]
NONE, EVERY = 1e-9, 0.999

pytestmark = pytest.mark.usefixtures("one_thread")


def toy(kind: str) -> tuple[Bridge, Counter[str]]:
    """A bridge, and how often its denoiser's first and last block compute."""
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"}, {"kind": kind, "source": "random"}, "lavi", None, None
    )
    calls: Counter[str] = Counter()
    denoiser = bridge.vision.backbone
    first = denoiser.transformer_blocks[0].norm1
    last = (
        denoiser.single_transformer_blocks[-1].norm
        if kind == "flux"
        else denoiser.transformer_blocks[-1].norm1
    )
    for name, part in (("first", first), ("last", last)):
        part.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return bridge, calls


def drawn(bridge: Bridge, threshold: float | None, guidance: float = 1.0, **options: object) -> np.ndarray:
    found = BridgePipeline(bridge)(
        PROMPTS,
        num_inference_steps=6,
        guidance_scale=guidance,
        seed=1,
        step_cache=threshold,
        **options,  # type: ignore[arg-type]
    ).images
    return np.stack([np.asarray(each, int) for each in found])


@pytest.mark.parametrize(("kind", "lengths"), [("pixart", 1), ("flux", 2)])
def test_steps_are_reused_up_to_the_threshold(kind: str, lengths: int) -> None:
    """FLUX takes no mask, so that prompts of two lengths are two calls, each with its own step before."""
    bridge, calls = toy(kind)
    plain = drawn(bridge, None)
    assert calls == {"first": 6 * lengths, "last": 6 * lengths}
    calls.clear()
    assert np.array_equal(drawn(bridge, NONE), plain)
    assert calls["last"] == 6 * lengths
    calls.clear()
    reused = drawn(bridge, EVERY)
    assert (calls["first"], calls["last"]) == (6 * lengths, lengths)
    assert not np.array_equal(reused, plain)
    calls.clear()
    assert np.array_equal(drawn(bridge, None), plain)
    assert calls["last"] == 6 * lengths


def test_halves_of_guidance_and_batches_have_steps_of_their_own() -> None:
    bridge, calls = toy("pixart")
    drawn(bridge, EVERY, guidance=3.0, guidance_interval=(0.0, 0.5))
    assert (calls["first"], calls["last"]) == (6, 2)  # the first guided step and the first that is not
    calls.clear()
    drawn(bridge, EVERY, batch_size=1)
    assert (calls["first"], calls["last"]) == (12, 2)


def test_a_step_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge, _ = toy("pixart")
    plain = drawn(bridge, None)
    projected = bridge.vision.backbone.proj_out
    with monkeypatch.context() as patch:
        patch.setattr(projected, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            drawn(bridge, EVERY)
    assert np.array_equal(drawn(bridge, None), plain)
    assert not np.array_equal(drawn(bridge, EVERY), plain)


@pytest.mark.parametrize("kind", ["sd", "sd3", "sana"])
def test_others_say_what_can(kind: str) -> None:
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"}, {"kind": kind, "source": "random"}, "lavi", None, None
    )
    with pytest.raises(ModelError, match="step_cache supports PixArt and FLUX, found a"):
        drawn(bridge, 0.1)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.0, float("nan")])
def test_what_is_no_threshold(threshold: float) -> None:
    bridge, _ = toy("pixart")
    with pytest.raises(RecipeError, match="above 0 and below"):
        drawn(bridge, threshold)
