"""Toy bridges as if trained, drawn by `BridgePipeline` and by pipelines of Diffusers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lavibridge import Bridge, BridgePipeline, prompt_inputs
from lavibridge.generation.noise import initial_noise

PROMPTS = ["a (red:1.4) cat", "a much longer prompt: a boat beside a house"]
SEEDS = (4, 5)


def compose(vision: str, connector: str | dict[str, Any], source: str = "random", **language: Any) -> Bridge:
    """A toy bridge as if trained; ``source`` is that of the vision model."""
    small = {"rank": 4, "dropout": 0.0}
    bridge = Bridge.compose(
        {"kind": "llama", "source": "random", **language},
        {"kind": vision, "source": source},
        connector,
        language_lora=small,
        vision_lora=small,
    )
    generator = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data += 0.2 * torch.randn(value.shape, generator=generator)
    return bridge.eval()


def drawn(bridge: Bridge, guidance: float, negative: str, prompts: Sequence[str] = PROMPTS) -> Tensor:
    """The latents that `BridgePipeline` decodes."""
    seen: list[Tensor] = []
    decode = bridge.vision.decode

    def listening(latents: Tensor) -> Tensor:
        seen.append(latents.clone())
        return decode(latents)

    bridge.vision.decode = listening  # type: ignore[method-assign]
    BridgePipeline(bridge)(
        prompts,
        num_inference_steps=3,
        guidance_scale=guidance,
        seed=list(SEEDS[: len(prompts)]),
        negative_prompt=negative,
        prompt_weighting=True,
    )
    del bridge.vision.decode
    (latents,) = seen
    return latents


def piped(bridge: Bridge, pipe: Any, guidance: float, negative: str) -> Tensor:
    vision = bridge.vision
    shape = vision.latent_shape(vision.default_size, vision.default_size)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(
        **prompt_inputs(bridge, PROMPTS, negative, prompt_weighting=True),
        latents=initial_noise(shape, SEEDS),
        num_inference_steps=3,
        guidance_scale=guidance,
        height=vision.default_size,
        width=vision.default_size,
        output_type="latent",
    )
    return output.images


ELLA = {"kind": "ella", "latents": 5, "blocks": 2, "heads": 4, "time_channels": 16}
