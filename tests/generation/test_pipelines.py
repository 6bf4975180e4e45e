"""The same latents, prompt embeddings and noise through a family as through its published pipeline."""

from typing import Any

import diffusers
import pytest
import torch
from every_step import sample
from torch import Tensor

from lavibridge.core import registry
from lavibridge.core.contracts import Conditioning
from lavibridge.diffusion.guidance import apply_guidance
from lavibridge.generation.noise import initial_noise
from lavibridge.generation.sampling import make_sampler
from lavibridge.vision.hf import DiffusersModel

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
STEPS = 4
SIZE = {"height": 32, "width": 64}
NO_ENCODERS = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
OPTIONS: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "latent", **SIZE}


def prepared(kind: str, samples: int) -> tuple[DiffusersModel, Conditioning, Tensor]:
    """A toy, conditioning of six tokens, noise of a picture that is no square."""
    family = registry.load_kind("vision", kind)
    model = family(family.Config(source="random"))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(samples, 6, model.spec.context, generator=generator)
    pooled = model.spec.pooled
    given = Conditioning(
        tokens=tokens,
        mask=torch.ones(samples, 6, dtype=torch.bool),
        pooled=None if pooled is None else torch.randn(samples, pooled, generator=generator),
    )
    return model, given, initial_noise(model.latent_shape(**SIZE), (1,))


@torch.no_grad()
def ours(model: DiffusersModel, sampler: str, given: Conditioning, noise: Tensor) -> Tensor:
    """Drawn with the family's own guidance; the first row of ``given`` is the negative prompt's."""

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        every = xt.expand(len(given.tokens), -1, -1, -1)
        prediction = model.predict(every, t.expand(len(every)), given)
        if len(every) == 1:
            return prediction
        return apply_guidance(prediction[:1], prediction[1:], model.default_guidance_scale)

    shape = (noise.shape[1], noise.shape[2], noise.shape[3])
    scheduler = make_sampler(model.scheduler, sampler, model.flow_shift(shape))
    return sample(predict, scheduler, noise, STEPS)


def theirs(pipe: Any, **options: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(**OPTIONS, **options).images  # type: ignore[no-any-return]


def embeddings(given: Conditioning) -> dict[str, Tensor]:
    assert given.pooled is not None
    return {
        "negative_prompt_embeds": given.tokens[:1],
        "prompt_embeds": given.tokens[1:],
        "negative_pooled_prompt_embeds": given.pooled[:1],
        "pooled_prompt_embeds": given.pooled[1:],
    }


def test_stable_diffusion_xl() -> None:
    model, given, noise = prepared("sdxl", 2)
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=model.autoencoder,
        unet=model.backbone,
        scheduler=make_sampler(model.scheduler, "euler"),
        **NO_ENCODERS,
    )
    torch.testing.assert_close(
        ours(model, "euler", given, noise), theirs(pipe, latents=noise, **embeddings(given))
    )


def test_stable_diffusion_3() -> None:
    model, given, noise = prepared("sd3", 2)
    pipe = diffusers.StableDiffusion3Pipeline(
        vae=model.autoencoder,
        transformer=model.backbone,
        scheduler=type(model.scheduler).from_config(model.scheduler.config),
        text_encoder_3=None,
        tokenizer_3=None,
        **NO_ENCODERS,
    )
    torch.testing.assert_close(
        ours(model, "euler", given, noise), theirs(pipe, latents=noise, **embeddings(given))
    )


def test_flux() -> None:
    """Guidance 1 beside the guidance that it is told: both are the pipeline's defaults."""
    model, given, noise = prepared("flux", 1)
    pipe = diffusers.FluxPipeline(
        vae=model.autoencoder,
        transformer=model.backbone,
        scheduler=type(model.scheduler).from_config(model.scheduler.config),
        **NO_ENCODERS,
    )
    packed = pipe._pack_latents(noise, *noise.shape)
    found = theirs(pipe, latents=packed, prompt_embeds=given.tokens, pooled_prompt_embeds=given.pooled)
    expected = pipe._unpack_latents(found, **SIZE, vae_scale_factor=pipe.vae_scale_factor)
    torch.testing.assert_close(ours(model, "euler", given, noise), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampler", ["dpm", "euler"])
def test_sana(sampler: str) -> None:
    """With masks, by its own scheduler and by that of its later models."""
    model, given, noise = prepared("sana", 2)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=model.scheduler.config.flow_shift)
    pipe = diffusers.SanaPipeline(
        vae=model.autoencoder,
        transformer=model.backbone,
        scheduler=euler if sampler == "euler" else type(model.scheduler).from_config(model.scheduler.config),
        text_encoder=None,
        tokenizer=None,
    )
    expected = theirs(
        pipe,
        prompt=None,
        negative_prompt=None,
        prompt_embeds=given.tokens[1:],
        negative_prompt_embeds=given.tokens[:1],
        prompt_attention_mask=mask[1:],
        negative_prompt_attention_mask=mask[:1],
        latents=noise,
        use_resolution_binning=False,
    )
    masked = Conditioning(tokens=given.tokens, mask=mask.bool())
    torch.testing.assert_close(ours(model, sampler, masked, noise), expected)
