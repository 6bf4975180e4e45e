"""Families that declare toys of their published pipelines: they read and draw as Diffusers does."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from importlib import import_module
from math import isqrt
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from toy_pipelines import DECLARED, FAMILIES, pipeline, read_by_pipeline, without_resizing

from lavibridge import BridgePipeline, lora
from lavibridge.core import registry
from lavibridge.core.contracts import Conditioning
from lavibridge.generation.noise import initial_noise
from lavibridge.generation.sampling import Sampling, make_sampler
from lavibridge.lora import LoraSettings

PROMPTS = ("a red circle", "a small Green ring to the left of a blue square, on a gray floor", "cat " * 200)
NEGATIVE = "blurred"
SIZE = {"height": 32, "width": 32}
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
Pair = tuple[Any, BridgePipeline]
DRAWN = ("sd", "sdxl", "sd3", "flux", "pixart", "pixart-sigma", "sana")
"""Families whose toys have encoders of the miniature world, and whose pipelines take a scheduler."""
EVERY = (*DRAWN, *DECLARED)
OWN_TESTS = {"anima", "hunyuan_dit", "kolors", "ldm", "prx"}
"""Families whose pipelines need a package that is not here, or know only their own scheduler."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """A toy pipeline of Diffusers, and ours of the folder that it saves, each made when first asked for."""

    @cache
    def make(name: str) -> Pair:
        pipe, folder = pipeline(name), tmp_path_factory.mktemp(name.replace(" ", "-"))
        pipe.save_pretrained(folder)
        return pipe, BridgePipeline.native(folder, device="cpu")

    return make


@pytest.fixture
def pair(name: str, opened: Callable[[str], Pair]) -> Pair:
    return opened(name)


def test_every_family_is_compared_with_diffusers() -> None:
    """A new family declares `toy_pipelines`; one whose pipeline cannot run here has a test of its own."""
    kinds = {FAMILIES[name][0] for name in DRAWN} | {kind for kind, _ in DECLARED.values()}
    assert kinds | OWN_TESTS == set(registry.kinds("vision"))
    assert not kinds & OWN_TESTS


@pytest.mark.parametrize("name", DECLARED)
def test_the_denoiser_reads_the_tokens_of_the_pipeline(pair: Pair) -> None:
    pipe, ours = pair
    text = ours.bridge.language
    found, away = text.encode(PROMPTS).split(), text.encode_negative([NEGATIVE])
    assert found[0].hidden.shape[-1] == ours.bridge.vision.spec.context
    for prompt, features in zip(PROMPTS, found, strict=True):
        expected, negative = read_by_pipeline(pipe, prompt, NEGATIVE, text.spec.width)
        torch.testing.assert_close(features.hidden[0, 0], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(away.hidden[0, 0][away.mask[0]], negative, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("prompt", PROMPTS[:2])
def test_latents_are_those_of_the_pipeline(prompt: str, name: str, pair: Pair) -> None:
    """After four guided steps of its own scheduler."""
    pipe, ours = pair
    vision: Any = ours.bridge.vision
    noise = initial_noise(vision.latent_shape(**SIZE), [3])
    theirs = inspect.signature(pipe.__call__).parameters
    is_guided = vision.default_guidance_scale != 1
    scale = 3.0 if is_guided else 1.0
    own: dict[str, Any] = {"latents": packed_by_pipeline(pipe, noise)}
    hide_padding(pipe)
    if name in DRAWN and name != "flux":  # FLUX.1's own scheduler takes our Euler steps
        pipe.scheduler = make_sampler(vision.scheduler, "euler", vision.flow_shift(noise.shape[1:]))
    if is_guided:
        scaled = "true_cfg_scale" if "true_cfg_scale" in theirs else "guidance_scale"
        own[scaled] = scale - vision.pipeline_guidance_offset
    if is_guided and "negative_prompt" in theirs:
        own["negative_prompt"] = NEGATIVE if name.startswith(("pixart", "sana")) else [NEGATIVE]
    if "use_resolution_binning" in theirs:
        own["use_resolution_binning"] = False
    expected = pipe(prompt=[prompt], num_inference_steps=4, output_type="latent", **own, **SIZE).images
    negative = NEGATIVE if "negative_prompt" in own else ""
    found = ours(
        prompt,
        negative_prompt=negative,
        seed=3,
        sampler="dpm_karras" if type(pipe.scheduler).__name__.startswith("EDM") else "euler",
        num_inference_steps=4,
        guidance_scale=scale,
        output_type="latent",
        **SIZE,
    ).images
    assert relative_error(packed_like(found, expected, vision) * unit(pipe), expected) < 1e-4


@pytest.mark.parametrize("name", EVERY)
def test_images_are_those_of_the_pipeline(pair: Pair) -> None:
    """The autoencoder decodes the same latents to the same image, and reads them back."""
    _, ours = pair
    vision: Any = ours.bridge.vision
    images = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = vision.encode_moments(images)
    assert mean.shape[1:] == vision.latent_shape(32, 64)
    assert bool((std >= 0).all())
    assert vision.decode(mean).shape == images.shape


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by PEFT
@pytest.mark.parametrize("name", EVERY)
def test_lora_of_two_steps_is_opened_and_merged_by_peft(name: str, pair: Pair, tmp_path: Path) -> None:
    _, ours = pair
    kind = registry.kind_of("vision", ours.bridge.vision)
    assert kind == (FAMILIES.get(name) or DECLARED[name])[0]
    family: Any = registry.load_kind("vision", kind)
    source = ours.bridge.vision.config.source
    model = family(family.Config(source=source))
    own_class = type(model.backbone)
    lora.inject_lora(model.backbone, LoraSettings(rank=4), model.lora_targets, "vision model")
    optimizer = torch.optim.AdamW(lora.lora_parameters(model.backbone).values(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, *model.latent_shape(32, 32), generator=generator)
    given, t = ours.bridge.condition(["a red circle"]), torch.tensor([500.0])
    plain = model.predict(noisy, t, given).detach()
    for _ in range(2):
        optimizer.zero_grad()
        (model.predict(noisy, t, given) - noisy).square().mean().backward()
        optimizer.step()
    lora.save_lora(model.backbone, tmp_path, source)
    lora.merge_lora(model.backbone)
    expected = model.predict(noisy, t, given)
    assert (expected - plain).abs().max() > 1e-4
    original = own_class.from_pretrained(Path(source) / family.denoiser_folder)
    model.backbone = peft.PeftModel.from_pretrained(original, tmp_path).merge_and_unload()
    torch.testing.assert_close(model.predict(noisy, t, given), expected, atol=1e-5, rtol=1e-5)


def test_prx_draws_as_its_pipeline() -> None:
    """With tokens of two lengths; its pipeline cannot clean prompts without ftfy."""
    family: Any = registry.load_kind("vision", "prx")
    vision = family(family.Config(source="random"))
    pipe = diffusers.PRXPipeline(vision.backbone, vision.scheduler, None, None, vision.autoencoder)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *vision.latent_shape(32, 32), generator=generator)
    tokens = torch.randn(2, 7, vision.spec.context, generator=generator)
    mask = torch.arange(7) < torch.tensor([[4], [7]])
    expected = pipe(
        prompt_embeds=tokens[1:],
        negative_prompt_embeds=tokens[:1],
        prompt_attention_mask=mask[1:],
        negative_prompt_attention_mask=mask[:1],
        latents=noise,
        guidance_scale=3.0,
        num_inference_steps=4,
        output_type="latent",
        use_resolution_binning=False,
        **SIZE,
    ).images
    given = Conditioning(tokens=tokens, mask=mask)
    assert relative_error(drawn(vision, noise, given), expected) < 1e-4


def drawn(vision: Any, noise: Tensor, given: Conditioning) -> Tensor:
    """Latents after four Euler steps, guided with 3 from the first of two prompts to the second."""
    shift = vision.flow_shift(noise.shape[1:])
    sampling = Sampling(make_sampler(vision.scheduler, "euler", shift, vision.step_spacing), noise, 4)
    while not sampling.is_finished:
        with torch.no_grad():
            both = vision.predict(sampling.noisy.repeat(2, 1, 1, 1), sampling.t.expand(2), given)
        sampling.take(vision.guide(both[:1], both[1:], 3.0))
    return sampling.latents


def test_hunyuan_dit_draws_as_its_pipeline() -> None:
    """With mT5's tokens of two lengths and none of BERT's, as a bridge makes them."""
    family: Any = registry.load_kind("vision", "hunyuan_dit")
    vision = family(family.Config(source="random"))
    settings = vision.backbone.config
    pipe = diffusers.HunyuanDiTPipeline(
        vision.autoencoder, None, None, vision.backbone, vision.scheduler, None, None, False
    )
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *vision.latent_shape(32, 64), generator=generator)
    mask = torch.arange(settings.text_len_t5) < torch.tensor([[4], [7]])
    tokens = torch.randn(*mask.shape, vision.spec.context, generator=generator) * mask[..., None]
    absent = torch.zeros(1, settings.text_len, settings.cross_attention_dim)
    none = torch.zeros(1, settings.text_len, dtype=torch.bool)
    pipe.scheduler = make_sampler(vision.scheduler, "euler")
    expected = pipe(
        prompt_embeds=absent,
        negative_prompt_embeds=absent,
        prompt_attention_mask=none,
        negative_prompt_attention_mask=none,
        prompt_embeds_2=tokens[1:],
        negative_prompt_embeds_2=tokens[:1],
        prompt_attention_mask_2=mask[1:],
        negative_prompt_attention_mask_2=mask[:1],
        latents=noise,
        guidance_scale=3.0,
        num_inference_steps=4,
        output_type="latent",
        height=32,
        width=64,
        original_size=(32, 64),
        use_resolution_binning=False,
    ).images
    given = Conditioning(tokens=tokens[:, :9], mask=mask[:, :9])
    assert relative_error(drawn(vision, noise, given), expected) < 1e-4


def test_anima_draws_as_its_modular_pipeline() -> None:
    """From the tokens of its text conditioner; Diffusers has no other pipeline of it."""
    anima: Any = import_module("diffusers.modular_pipelines.anima")
    family: Any = registry.load_kind("vision", "anima")
    vision = family(family.Config(source="random"))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *vision.latent_shape(32, 64), generator=generator)
    tokens = torch.randn(2, 7, vision.spec.context, generator=generator)
    expected = anima_latents(anima, vision, noise, tokens)
    given = Conditioning(tokens=tokens, mask=torch.ones(2, 7, dtype=torch.bool))
    assert relative_error(drawn(vision, noise, given), expected) < 1e-4


def anima_latents(anima: Any, vision: Any, noise: Tensor, tokens: Tensor) -> Tensor:
    """Four guided steps by the pipeline's own blocks, after those that read text."""
    steps: Any = import_module("diffusers.modular_pipelines.anima.before_denoise")
    loop: Any = import_module("diffusers.modular_pipelines.anima.denoise")
    made: Any = import_module("diffusers.modular_pipelines.modular_pipeline")

    class Drawing(made.SequentialPipelineBlocks):  # type: ignore[misc, name-defined]
        model_name = "anima"
        block_classes = (
            steps.AnimaTextInputStep,
            steps.AnimaPrepareLatentsStep,
            steps.AnimaSetTimestepsStep,
            loop.AnimaDenoiseStep,
        )
        block_names = ("input", "latents", "times", "denoise")

    pipe = Drawing().init_pipeline()
    pipe.update_components(
        transformer=without_resizing(deepcopy(vision.backbone)),
        scheduler=vision.scheduler,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt_embeds=tokens[1:],
        negative_prompt_embeds=tokens[:1],
        latents=noise[:, :, None],
        num_inference_steps=4,
        height=noise.shape[2] * vision.factor,
        width=noise.shape[3] * vision.factor,
        output="latents",
    )[:, :, 0]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_kolors_predicts_as_in_its_pipeline() -> None:
    """With tokens and pooled vectors; its tokenizer needs sentencepiece."""
    kolors: Any = import_module("diffusers.pipelines.kolors.pipeline_kolors")
    family: Any = registry.load_kind("vision", "kolors")
    vision = family(family.Config(source="random"))
    pipe = kolors.KolorsPipeline(vision.autoencoder, None, None, vision.backbone, vision.scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 7, vision.spec.context, generator=generator)
    pooled = torch.randn(2, vision.spec.pooled, generator=generator)
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    hook = vision.backbone.register_forward_hook(
        lambda _, given, output: calls.append((given[0], given[1], output[0]))
    )
    pipe(
        prompt_embeds=tokens[1:],
        pooled_prompt_embeds=pooled[1:],
        negative_prompt_embeds=tokens[:1],
        negative_pooled_prompt_embeds=pooled[:1],
        generator=generator,
        num_inference_steps=2,
        output_type="latent",
        **SIZE,
    )
    hook.remove()
    given = Conditioning(tokens=tokens, mask=torch.ones(2, 7, dtype=torch.bool), pooled=pooled)
    assert len(calls) == 2
    for noisy, t, expected in calls:
        with torch.no_grad():
            torch.testing.assert_close(vision.predict(noisy, t.expand(2), given), expected)


def test_chroma_in_diffusers_still_needs_its_padding_hidden() -> None:
    """If this fails, Diffusers hides it: delete `hide_padding` (decision 0024)."""
    pipe = pipeline("chroma")
    with torch.no_grad():
        _, mask = pipe._get_t5_prompt_embeds(["a red circle"], max_sequence_length=64)
    assert mask.is_floating_point()
    assert not mask.all()


def hide_padding(pipe: Any) -> None:
    """Diffusers adds Chroma's mask of ones and zeros to the scores; the published model hides the padding."""
    made = getattr(pipe, "_prepare_attention_mask", None)
    if made is not None:
        pipe._prepare_attention_mask = lambda *args, **options: made(*args, **options).bool()


def packed_by_pipeline(pipe: Any, noise: Tensor) -> Tensor:
    """Noise in the layout that a pipeline takes as `latents`."""
    if hasattr(pipe.vae, "temperal_downsample") and not hasattr(pipe, "_pack_latents"):
        return noise[:, :, None]
    pack = getattr(pipe, "_pack_latents", None)
    if pack is None or len(inspect.signature(pack).parameters) == 1:
        return noise
    return pack(noise, *noise.shape)


def packed_like(latents: Tensor, other: Tensor, vision: Any) -> Tensor:
    """Latents in the layout of a pipeline's output: as they are, packed, or as the autoencoder takes them."""
    if latents.shape == other.shape:
        return latents
    if latents.ndim == other.ndim:
        shift, scale = vision._shift_and_scale()
        return functional.pixel_shuffle(latents / scale + shift, other.shape[-1] // latents.shape[-1])
    side = isqrt(other.shape[2] // latents.shape[1])
    return functional.pixel_unshuffle(latents, side).flatten(2).transpose(1, 2)


def unit(pipe: Any) -> float:
    """What a pipeline's latents of EDM are divided by in ours: their deviation, and 1 + the last noise."""
    settings = pipe.scheduler.config
    last = settings.sigma_min if settings.get("final_sigmas_type") == "sigma_min" else 0.0
    return float(settings.get("sigma_data", 1.0) * (1 + last))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
