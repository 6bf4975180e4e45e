"""Corruption, targets and weights as identities that must hold at every timestep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.diffusion import objective
from lavibridge.diffusion.guidance import apply_guidance
from lavibridge.diffusion.schedule import diffusion_schedule, flow_schedule
from lavibridge.diffusion.weighting.min_snr import MinSnr
from lavibridge.diffusion.weighting.uniform import UniformWeighting
from lavibridge.diffusion.weighting.velocity import Velocity

shares = st.floats(min_value=0.01, max_value=0.99)


def draws(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, generator=generator)


def signal_and_noise(kind: str, share: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma: shares of the variance for a diffusion, of the path for a flow."""
    return (share, 1 - share) if kind == "flow" else (share.sqrt(), (1 - share).sqrt())


@pytest.mark.parametrize("kind", objective.PREDICTION_TYPES)
@settings(deadline=None, max_examples=25)
@given(first=shares, second=shares, seed=st.integers(0, 1000))
def test_the_target_gives_the_clean_latents_back(kind: str, first: float, second: float, seed: int) -> None:
    x0, noise = draws(seed)
    shares = signal_and_noise(kind, torch.tensor([first, second]))
    xt = objective.add_noise(x0, noise, *shares)
    target = objective.prediction_target(kind, x0, noise, *shares)
    torch.testing.assert_close(objective.predict_x0(kind, target, xt, *shares), x0, atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=25)
@given(share=shares, gamma=st.floats(min_value=0.5, max_value=20))
def test_min_snr_weighs_the_clean_latents_error_alike(share: float, gamma: float) -> None:
    """An error in x0 costs min(snr, gamma) times its square, whatever is predicted."""
    x0, noise = draws(0)
    x0, noise = x0.double(), noise.double()
    for kind in objective.PREDICTION_TYPES:
        shares = signal_and_noise(kind, torch.full((2,), share, dtype=torch.float64))
        xt = objective.add_noise(x0, noise, *shares)
        snr = objective.snr(*shares)
        target = objective.prediction_target(kind, x0, noise, *shares)
        wrong = target + 0.1
        error = (wrong - target).square().mean(dim=(1, 2, 3))
        clean = (objective.predict_x0(kind, wrong, xt, *shares) - x0).square().mean(dim=(1, 2, 3))
        weighted = MinSnr(MinSnr.Config(gamma=gamma)).weight(snr, kind) * error
        torch.testing.assert_close(weighted, snr.clamp(max=gamma) * clean)


@pytest.mark.parametrize("share", [0.06, 0.5, 0.99])
def test_velocity_weighting_counts_the_error_of_the_velocity(share: float) -> None:
    x0, noise = draws(2)
    shares = signal_and_noise("epsilon", torch.full((2,), share))
    xt = objective.add_noise(x0, noise, *shares)
    velocity = objective.prediction_target("v_prediction", x0, noise, *shares)
    for kind in ("epsilon", "v_prediction", "sample"):
        wrong = objective.prediction_target(kind, x0, noise, *shares) + 0.1
        clean = objective.predict_x0(kind, wrong, xt, *shares)
        implied = objective.prediction_target(
            "v_prediction", clean, (xt - share**0.5 * clean) / (1 - share) ** 0.5, *shares
        )
        weights = Velocity(Velocity.Config()).weight(objective.snr(*shares), kind)
        error = (implied - velocity).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(weights * 0.01, error, rtol=1e-3, atol=1e-6)


def test_ends_of_the_schedule() -> None:
    x0, noise = draws(1)
    none, all_of_it = torch.zeros(2), torch.ones(2)
    assert torch.equal(objective.add_noise(x0, noise, all_of_it, none), x0)
    assert torch.equal(objective.add_noise(x0, noise, none, all_of_it), noise)
    for kind in ("epsilon", "flow"):
        assert torch.isfinite(MinSnr(MinSnr.Config()).weight(objective.snr(none, all_of_it), kind)).all()
    assert torch.equal(
        UniformWeighting(UniformWeighting.Config()).weight(torch.rand(3), "epsilon"), torch.ones(3)
    )


def test_agrees_with_the_library() -> None:
    import diffusers

    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    x0, noise = draws(2)
    t = torch.tensor([3, 900])
    schedule = diffusion_schedule(scheduler.alphas_cumprod)
    shares = schedule.alphas[t], schedule.sigmas[t]
    torch.testing.assert_close(objective.add_noise(x0, noise, *shares), scheduler.add_noise(x0, noise, t))
    expected = scheduler.get_velocity(x0, noise, t)
    torch.testing.assert_close(objective.prediction_target("v_prediction", x0, noise, *shares), expected)
    assert torch.equal(schedule.times[t], t.float())


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_agrees_with_the_library(shift: float) -> None:
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = flow_schedule(1000, shift)
    torch.testing.assert_close(schedule.sigmas.flip(0), scheduler.sigmas, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(schedule.times.flip(0), scheduler.timesteps, atol=1e-3, rtol=1e-6)
    assert torch.equal(schedule.alphas, 1 - schedule.sigmas)
    x0, noise = draws(5)
    t = torch.tensor([3, 900])
    xt = objective.add_noise(x0, noise, schedule.alphas[t], schedule.sigmas[t])
    velocity = objective.prediction_target("flow", x0, noise, schedule.alphas[t], schedule.sigmas[t])
    further = objective.add_noise(x0, noise, schedule.alphas[t] - 0.01, schedule.sigmas[t] + 0.01)
    torch.testing.assert_close((further - xt) / 0.01, velocity, atol=1e-3, rtol=1e-3)


def test_unknown_names() -> None:
    x0, noise = draws(3)
    with pytest.raises(ModelError, match="prediction type 'velocity'"):
        objective.prediction_target("velocity", x0, noise, torch.ones(2), torch.zeros(2))


def test_guidance() -> None:
    without, given_prompt = draws(4)
    torch.testing.assert_close(apply_guidance(without, given_prompt, 1.0), given_prompt)
    assert torch.equal(apply_guidance(without, given_prompt, 0.0), without)
    torch.testing.assert_close(
        apply_guidance(without, given_prompt, 3.0) - without, 3 * (given_prompt - without)
    )
