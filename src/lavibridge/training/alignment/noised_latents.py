"""Collects the noised latents at which an alignment compares a student with its teacher.

data       the run's first images, encoded and noised as in training
sampling   the latents of each step as the teacher generates the first captions; needs no images
"""

from collections.abc import Iterator, Sequence

import torch

from lavibridge.alignment.base import NoisedLatents
from lavibridge.bridge import Bridge
from lavibridge.diffusion.objective import add_noise
from lavibridge.generation.denoise import SEPARATE_DENOISER_CALLS, take_denoising_step
from lavibridge.generation.emphasis import read_emphasis
from lavibridge.generation.noise import initial_noise
from lavibridge.generation.prompt_encoding import encode_prompts
from lavibridge.generation.request_state import RequestState, resolve_denoising_settings
from lavibridge.training.data.batches import BatchLoader

SAMPLING_STEPS = 16
"""Denoising steps of the teacher's generation."""
DRAWN_TOGETHER = 8
"""Images that the teacher generates in one batch."""


def noised_data(teacher: Bridge, batches: BatchLoader, count: int) -> list[NoisedLatents]:
    """Return at least ``count`` noised latents of the data's images, in the order and batches of training."""
    vision = teacher.vision
    found: list[NoisedLatents] = []
    while sum(len(each.t) for each in found) < count:
        draw = batches.draw(len(found), 0)
        alpha, sigma = vision.alphas[draw.t], vision.sigmas[draw.t]
        found.append(
            NoisedLatents(
                latents=add_noise(draw.batch.latents, draw.noise, alpha, sigma),
                t=vision.times[draw.t],
                prompts=draw.batch.prompts,
            )
        )
    return found


@torch.no_grad()
def sampled_latents(teacher: Bridge, captions: Sequence[str], count: int, seed: int) -> list[NoisedLatents]:
    """Return at least ``count`` noised latents from the teacher's generation of the first captions.

    The teacher generates at its vision model's default size and guidance scale, image i with ``seed`` + i.
    """
    pictures = min(len(captions), -(-count // SAMPLING_STEPS))
    found: list[NoisedLatents] = []
    for start in range(0, pictures, DRAWN_TOGETHER):
        chosen = captions[start : min(start + DRAWN_TOGETHER, pictures)]
        found += _trajectory(teacher, chosen, seed + start)
    return found


def _trajectory(teacher: Bridge, captions: Sequence[str], seed: int) -> Iterator[NoisedLatents]:
    """Generate some captions and yield the noised latents before each step."""
    settings = resolve_denoising_settings(teacher, num_inference_steps=SAMPLING_STEPS)
    prompts = [read_emphasis(caption, weights=False) for caption in captions]
    negative = [read_emphasis("", weights=False, is_negative=True)] * len(captions)
    encoded = encode_prompts(teacher, [*negative, *prompts], DRAWN_TOGETHER)
    noise = initial_noise(settings.shape, range(seed, seed + len(captions))).to(teacher.device)
    state = RequestState(
        teacher.vision,
        settings,
        [encoded[prompt] for prompt in prompts],
        [encoded[prompt] for prompt in (negative if settings.is_ever_guided else [])],
        noise,
    )
    while not state.is_finished:
        t = state.sampling.t.to(noise.device).expand(len(captions))
        yield NoisedLatents(latents=state.sampling.noisy, t=t, prompts=tuple(captions))
        take_denoising_step([state], teacher, SEPARATE_DENOISER_CALLS)
