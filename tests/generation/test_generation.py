"""Sampling that a batch does not change, and pictures on disk."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from every_step import sample
from PIL import Image
from torch import Tensor

from lavibridge import Bridge, BridgePipeline
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.diffusion.objective import prediction_target
from lavibridge.generation.contact_sheet import contact_sheet
from lavibridge.generation.denoise import SEPARATE_DENOISER_CALLS, take_denoising_step
from lavibridge.generation.emphasis import WeightedPrompt, read_emphasis
from lavibridge.generation.image_files import save_png
from lavibridge.generation.noise import initial_noise
from lavibridge.generation.output import to_pil_images
from lavibridge.generation.prompt_encoding import encode_prompts
from lavibridge.generation.quality import QUALITIES
from lavibridge.generation.request_state import RequestState, resolve_denoising_settings
from lavibridge.generation.samplers.base import Sampler
from lavibridge.generation.sampling import SAMPLER_PACKAGE, Sampling, make_sampler
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts.scheduler_settings import scheduler_prediction_type, scheduler_training_schedule


@pytest.fixture(scope="module")
def vision() -> VisionModel:
    family = registry.load_kind("vision", "sd")
    return family(family.Config(source="random"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    family = registry.load_kind("language", "t5")
    return family(family.Config(source="random"))  # type: ignore[no-any-return]


def toy(kind: str) -> VisionModel:
    family = registry.load_kind("vision", kind)
    return family(family.Config(source="random"))  # type: ignore[no-any-return]


TOYS = ({"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"})
SAMPLERS = registry.kinds(SAMPLER_PACKAGE)
FLOWS = tuple(
    kind
    for kind in registry.kinds("vision")
    if "Flow" in registry.load_kind("vision", kind).toy_scheduler["_class_name"]
    or registry.load_kind("vision", kind).toy_scheduler.get("use_flow_sigmas", False)
)
DIFFUSION_ONLY = tuple(
    sampler for sampler in SAMPLERS if registry.load_kind(SAMPLER_PACKAGE, sampler).of_flow is Sampler.of_flow
)
"""Samplers that refuse flows."""
PAIRS = [
    (kind, sampler)
    for kind in registry.kinds("vision")
    for sampler in SAMPLERS
    if not (kind in FLOWS and sampler in DIFFUSION_ONLY)
]


@pytest.mark.parametrize(("kind", "sampler"), PAIRS)
def test_a_perfect_prediction_ends_at_the_clean_latents(kind: str, sampler: str) -> None:
    """With what is true predicted at every step, each sampler walks back to x0."""
    model = toy(kind)
    shape = model.latent_shape(32, 32)
    x0 = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    noise = initial_noise(shape, (1, 2))
    scheduler = make_sampler(model.scheduler, sampler, model.flow_shift(shape))
    times = []

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        times.append(float(t))
        alpha, sigma = (
            float(np.interp(float(t), model.times, each)) for each in (model.alphas, model.sigmas)
        )
        eps = (xt - alpha * x0) / sigma
        return prediction_target(model.prediction_type, x0, eps, *torch.tensor([[alpha] * 2, [sigma] * 2]))

    found = sample(predict, scheduler, noise, 10)
    assert times == sorted(times, reverse=True)
    assert len(times) == 10
    assert (found - x0).abs().max() < 0.05


SCHEDULES: dict[str, Any] = {
    "epsilon": ("sd", {}),
    "v": ("sd", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "flow": ("sana", {}),
    "published flow": ("sd3", {}),
    "dynamic flow": ("flux", {}),
}
"""A family, and how its toy's scheduler is changed."""
ODD: dict[str, Any] = {
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "thresholding": True,
    "clip_sample": True,
    "solver_order": 3,
    "lower_order_final": False,
    "use_karras_sigmas": True,
    "final_sigmas_type": "sigma_min",
    "set_alpha_to_one": False,
    "variance_type": "learned_range",
    "lambda_min_clipped": -5.1,
    "stochastic_sampling": True,
    "timestep_type": "continuous",
}
"""Settings that models are published with, for another class of scheduler."""


def scheduled(name: str) -> VisionModel:
    kind, changes = SCHEDULES[name]
    model = toy(kind)
    settings = {**model.scheduler.config, **changes}
    model.scheduler = type(model.scheduler).from_config(settings)
    model.prediction_type = scheduler_prediction_type(model.scheduler, "toy")
    schedule = scheduler_training_schedule(model.scheduler)
    model.alphas, model.sigmas, model.times = schedule.alphas, schedule.sigmas, schedule.times
    return model


def samplers(name: str) -> list[str]:
    return [sampler for sampler in SAMPLERS if "flow" not in name or sampler not in DIFFUSION_ONLY]


SPREAD = 0.7


def drawn_from(model: VisionModel, sampler: str, steps: int) -> tuple[float, list[float]]:
    """What noise of 1 becomes where pictures are one number, ~ N(0, SPREAD^2), and every prediction is exact.

    The flow is linear then: without errors of the sampler, x0 = SPREAD.
    """
    times: list[float] = []

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        times.append(float(t))
        at = (np.interp(float(t), model.times, each) for each in (model.alphas, model.sigmas))
        alpha, sigma = (torch.tensor([float(each)]) for each in at)
        x0 = alpha * SPREAD**2 * xt / (alpha**2 * SPREAD**2 + sigma**2)
        return prediction_target(model.prediction_type, x0, (xt - alpha * x0) / sigma, alpha, sigma)

    scheduler = make_sampler(model.scheduler, sampler, model.flow_shift(model.latent_shape(32, 32)))
    return float(sample(predict, scheduler, torch.ones(1, 1, 1, 1), steps)), times


@pytest.mark.parametrize("name", SCHEDULES)
def test_any_number_of_steps_leads_from_noise_to_the_data(name: str) -> None:
    """The first time told is the last of the schedule, and more steps miss the data's spread by less."""
    model = scheduled(name)
    last = float(model.times[-1])
    for sampler in samplers(name):
        for steps, most in ((1, 0.71), (2, 0.7), (20, 0.1), (61, 0.03)):
            found, times = drawn_from(model, sampler, steps)
            assert len(times) == steps
            assert last - 1 <= times[0] <= last
            assert times == sorted(times, reverse=True)
            assert abs(found - SPREAD) < most
        for steps in (0, 1001):
            with pytest.raises(RecipeError, match=f"1 to 1000: .*found {steps}"):
                drawn_from(model, sampler, steps)


@pytest.mark.parametrize("steps", [999, 1000])
def test_no_step_stands_still(steps: int) -> None:
    """With as many steps as there are times, or one less, the noise falls in each: none divides by 0."""
    model = scheduled("epsilon")
    for sampler in SAMPLERS:
        scheduler = make_sampler(model.scheduler, sampler)
        assert Sampling(scheduler, torch.ones(1, 1, 1, 1), steps).t == 999
        assert (scheduler.sigmas.diff() < 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_extremes_stay_on_the_way(name: str) -> None:
    model = scheduled(name)
    for sampler in samplers(name):
        for steps in (500, 600, 999, 1000):
            found, times = drawn_from(model, sampler, steps)
            assert len(times) == steps
            assert abs(found - SPREAD) < 0.006


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_number_of_steps_begins_at_the_last_time(name: str) -> None:
    model = scheduled(name)
    last = float(model.times[-1])
    for sampler in samplers(name):
        scheduler = make_sampler(model.scheduler, sampler, model.flow_shift(model.latent_shape(32, 32)))
        for steps in range(1, 1001):
            sampling = Sampling(scheduler, torch.ones(1, 1, 1, 1), steps)
            assert last - 1 <= float(sampling.t) <= last
            assert len(scheduler.timesteps) == steps
            assert sampling.noisy.isfinite().all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_nothing_but_the_noise_schedule_comes_from_a_model(name: str) -> None:
    """Whatever else its scheduler_config.json says, each sampler does the same."""
    model, odd = scheduled(name), scheduled(name)
    odd.scheduler.register_to_config(**ODD)
    for sampler in samplers(name):
        assert drawn_from(odd, sampler, 7) == drawn_from(model, sampler, 7)


def test_a_noise_schedule_that_samplers_do_not_know() -> None:
    sigmoid = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    with pytest.raises(ModelError, match=r"'sigmoid'.*trained_betas"):
        scheduler_prediction_type(sigmoid, "a model")
    given = diffusers.DDPMScheduler(beta_schedule="sigmoid", trained_betas=sigmoid.betas.tolist())
    assert scheduler_prediction_type(given, "a model") == "epsilon"
    made = make_sampler(given)
    torch.testing.assert_close(made.alphas_cumprod, sigmoid.alphas_cumprod)


def test_ddim_is_ddim() -> None:
    """Diffusers' own, where its steps are even."""
    model = scheduled("epsilon")
    own = diffusers.DDIMScheduler.from_config(model.scheduler.config, timestep_spacing="trailing")
    own.set_timesteps(20)
    chance = torch.Generator().manual_seed(0)
    noise, guesses = torch.randn(1, 4, 8, 8, generator=chance), torch.randn(20, 1, 4, 8, 8, generator=chance)

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        return xt / 2 + guesses[int(t) // 50]

    xt = noise
    for t in own.timesteps:
        xt = own.step(predict(xt, t), t, xt, return_dict=False)[0]
    torch.testing.assert_close(sample(predict, make_sampler(model.scheduler, "ddim"), noise, 20), xt)


def test_a_flow_is_sampled_as_a_flow(vision: VisionModel) -> None:
    flow = toy("sd3")
    shift = flow.flow_shift((16, 8, 8))
    with pytest.raises(RecipeError, match="unipc, dpm or euler"):
        make_sampler(flow.scheduler, "ddim", shift)
    with pytest.raises(ValueError, match="flow_shift"):
        make_sampler(flow.scheduler)
    with pytest.raises(ValueError, match="flow_shift"):
        make_sampler(vision.scheduler, shift=3.0)


def test_euler_walks_the_steps_of_the_published_pipelines() -> None:
    """Those of Stable Diffusion 3 and of FLUX, the latter at two sizes."""
    sd3 = toy("sd3")
    made = make_sampler(sd3.scheduler, "euler", sd3.flow_shift((16, 8, 8)))
    made.set_timesteps(7)
    own = diffusers.FlowMatchEulerDiscreteScheduler.from_config(sd3.scheduler.config)
    own.set_timesteps(7)
    torch.testing.assert_close(made.sigmas, own.sigmas)
    flux = toy("flux")
    for side in (8, 64):
        made = make_sampler(flux.scheduler, "euler", flux.flow_shift((16, side, side)))
        made.set_timesteps(7)
        own = diffusers.FlowMatchEulerDiscreteScheduler.from_config(flux.scheduler.config)
        own.set_timesteps(sigmas=np.linspace(1, 1 / 7, 7), mu=calculate_shift((side // 2) ** 2))
        torch.testing.assert_close(made.sigmas, own.sigmas)
        torch.testing.assert_close(made.timesteps, own.timesteps)


@pytest.mark.parametrize("kind", registry.kinds("vision"))
def test_every_family_draws(kind: str, language: LanguageModel) -> None:
    """With its own guidance by default, and alone as in company."""
    spoken = {"kind": "t5", "source": "random"}
    bridge = Bridge.compose(spoken, {"kind": kind, "source": "random"}, "lavi", None, None)
    prompts = ["a cat", "a much longer prompt with a boat in it"]
    drawn = BridgePipeline(bridge)(prompts, num_inference_steps=2, seed=[3, 4]).images
    own = BridgePipeline(bridge)(
        prompts[1], num_inference_steps=2, guidance_scale=bridge.vision.default_guidance_scale, seed=4
    ).images
    assert np.abs(np.asarray(drawn[1], int) - np.asarray(own[0], int)).max() <= 1
    other = BridgePipeline(bridge)(prompts[1], num_inference_steps=2, guidance_scale=12.0, seed=4).images
    assert not np.array_equal(np.asarray(own[0]), np.asarray(other[0]))


def test_unknown_sampler(vision: VisionModel) -> None:
    with pytest.raises(RecipeError, match="did you mean 'unipc'"):
        make_sampler(vision.scheduler, "unpic")


def test_noise_belongs_to_its_seed() -> None:
    both = initial_noise((4, 8, 8), (3, 4))
    assert torch.equal(both[1:], initial_noise((4, 8, 8), (4,)))
    assert not torch.equal(both[0], both[1])


def plain(prompt: str) -> WeightedPrompt:
    return read_emphasis(prompt, weights=False)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_latents_are_the_same_alone_and_in_company(guidance: float) -> None:
    bridge = Bridge.compose(*TOYS, "lavi", None, None).eval()
    prompts = ("a cat", "a much longer prompt with a boat in it", "two red houses")
    settings = resolve_denoising_settings(bridge, num_inference_steps=6, guidance_scale=guidance)
    encoded = encode_prompts(bridge, [*map(plain, prompts), plain("")], 8)

    def latents(chosen: list[int]) -> Tensor:
        texts = [encoded[plain(prompts[index])] for index in chosen]
        negatives = [encoded[plain("")]] * len(chosen) if settings.is_ever_guided else []
        noise = initial_noise(settings.shape, chosen)
        state = RequestState(bridge.vision, settings, texts, negatives, noise)
        while not state.is_finished:
            take_denoising_step([state], bridge, SEPARATE_DENOISER_CALLS)
        return state.sampling.latents

    together = latents([0, 1, 2])
    for index in range(3):
        torch.testing.assert_close(latents([index])[0], together[index], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("connector", ["lavi", "ella"])
def test_guidance_in_some_of_the_steps_alone(connector: str) -> None:
    """Half of the rows outside; at its ends, the same as with guidance everywhere and without any."""
    small = {"kind": "ella", "latents": 3, "blocks": 1, "heads": 4, "time_channels": 8}
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"},
        {"kind": "sd", "source": "random"},
        small if connector == "ella" else connector,
        None,
        None,
    )
    rows: list[int] = []
    bridge.vision.backbone.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))

    def drawn(guidance: float, *interval: float) -> tuple[list[int], np.ndarray]:
        rows.clear()
        options = {"guidance_interval": interval} if interval else {}
        found = BridgePipeline(bridge)(
            ["a cat", "a red boat"], num_inference_steps=4, guidance_scale=guidance, seed=1, **options
        ).images  # type: ignore[arg-type]
        return list(rows), np.stack([np.asarray(each, int) for each in found])

    everywhere, part, without = drawn(9.0), drawn(9.0, 0.25, 0.75), drawn(1.0)
    assert [everywhere[0], part[0], without[0]] == [[4] * 4, [2, 4, 4, 2], [2] * 4]
    assert np.array_equal(drawn(9.0, 0.0, 1.0)[1], everywhere[1])
    late = drawn(9.0, 0.9, 1.0)  # of four steps the last begins at three quarters
    assert late[0] == without[0]
    assert np.array_equal(late[1], without[1])
    assert not np.array_equal(part[1], everywhere[1])
    with pytest.raises(RecipeError, match=r"found 0\.8 and 0\.2"):
        drawn(9.0, 0.8, 0.2)


def test_a_quality_decides_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"}, "lavi", None, None
    )
    rows: list[int] = []
    bridge.vision.backbone.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))

    def drawn(**options: Any) -> tuple[list[int], np.ndarray]:
        rows.clear()
        (picture,) = BridgePipeline(bridge)("a cat", guidance_scale=3.0, seed=0, **options).images
        return list(rows), np.asarray(picture, int)

    exact, high, fast = (drawn(quality=name) for name in QUALITIES)
    assert exact[0] == drawn()[0] == [2] * 20
    assert high[0] == [2] * 10 + [1] * 10
    assert fast[0] == [2] * 6 + [1] * 6
    assert drawn(quality="fast", num_inference_steps=4, guidance_interval=(0.0, 1.0))[0] == [2] * 4
    monkeypatch.setattr("lavibridge.generation.request_state.quality_gains_by_bfloat16", lambda device: True)
    assert np.array_equal(drawn()[1], exact[1])
    rounded = drawn(quality="high")[1]
    assert 0 < np.abs(rounded - high[1]).mean() < 0.015 * 255
    with pytest.raises(RecipeError, match="did you mean 'fast'"):
        drawn(quality="fsat")


def test_each_text_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge.compose(*TOYS, "lavi", None, None).eval()
    encode, calls = bridge.language.encode, list[str]()
    monkeypatch.setattr(
        bridge.language, "encode", lambda texts, *rest: (calls.extend(texts), encode(texts, *rest))[1]
    )
    pipe, prompts = BridgePipeline(bridge), ["a", "b", "a", "c"]
    pipe(prompts, num_inference_steps=1, num_images_per_prompt=2, guidance_scale=3.0, batch_size=2, seed=0)
    assert calls == ["", "a", "b", "c"]
    calls.clear()
    pipe(["a", "a"], num_inference_steps=1, guidance_scale=1.0, batch_size=2, seed=0)
    assert calls == ["a"]


def test_padding_undoes_the_splitting(language: LanguageModel) -> None:
    expected = language.encode(["a cat", "", "a longer one"])
    found = TextFeatures.pad(expected.split())
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.hidden[:, 0][found.mask], expected.hidden[:, 0][expected.mask])
    assert not found.hidden[:, 0][~found.mask].any()
    assert [len(part.mask[0]) for part in expected.split()] == expected.mask.sum(1).tolist()


def test_images_are_rgb_of_eight_bits() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    pictures = to_pil_images(values.expand(2, 3, 1, 6))
    assert [picture.mode for picture in pictures] == ["RGB", "RGB"]
    levels = np.asarray(pictures[0])
    assert levels.dtype == np.uint8
    assert levels[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


def test_png_keeps_its_text(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    save_png(tmp_path / "deep" / "a.png", image, {"prompt": "a naïve cat — 猫", "seed": "3"})
    loaded = Image.open(tmp_path / "deep" / "a.png")
    assert loaded.tobytes() == image.tobytes()
    assert loaded.text == {"prompt": "a naïve cat — 猫", "seed": "3"}  # type: ignore[attr-defined]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_contact_sheet_holds_every_picture() -> None:
    colours = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]
    grid = [[Image.new("RGB", (16, 16), colour) for colour in line] for line in colours]
    sheet = contact_sheet(grid, ["a red circle " * 20, "two"], ["untrained", "trained"], cell=64)
    counted = {colour: count for count, colour in sheet.getcolors(1 << 16)}
    for line in colours:
        for colour in line:
            assert counted[colour] == 64 * 64
    with pytest.raises(ValueError, match="2 rows by 1"):
        contact_sheet(grid, ["one", "two"], ["trained"])


class TwoCalls(Sampler):
    """Heun's method, which calls the denoiser twice a step."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        known = inspect.signature(diffusers.HeunDiscreteScheduler).parameters
        return diffusers.HeunDiscreteScheduler(**{name: noise[name] for name in noise if name in known})


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_sampler_that_calls_the_denoiser_twice_a_step_is_refused(vision: VisionModel) -> None:
    scheduler = TwoCalls().of_diffusion(vision.scheduler.config)
    with pytest.raises(RecipeError, match="HeunDiscreteScheduler has 19 times for 10 steps"):
        Sampling(scheduler, initial_noise((4, 8, 8), (1,)), 10)
