"""Pipelines of Diffusers draw what the bridge draws, and are told what they have no argument for."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from piped_bridges import ELLA, PROMPTS, compose, drawn, piped

from lavibridge import connect, prompt_inputs, to_diffusers
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RecipeError

# Diffusers reads torch tensors by a NumPy call that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CASES: list[tuple[str, str | dict[str, Any], dict[str, Any]]] = [
    ("sd", "lavi", {}),
    ("sd", "lavi", {"see_padding": True, "max_tokens": 60}),
    ("sd", ELLA, {}),
    ("sd", "llmdiff", {}),
    ("ldm", "lavi", {}),
    ("sdxl", "lavi", {}),
    ("sdxl", ELLA, {}),
    ("pixart", "lavi", {}),
    ("pixart", ELLA, {}),
    ("pixart", "llmdiff", {}),
    ("sana", "lavi", {}),
    ("sana", ELLA, {}),
    ("sd3", "lavi", {"see_padding": True, "max_tokens": 60}),
    ("sd3", ELLA, {}),
    ("sd", {"kind": "refiner", "read": "attention"}, {}),
]


@pytest.mark.parametrize(("vision", "connector", "language"), CASES)
@pytest.mark.parametrize(("guidance", "negative"), [(3.0, "blue and green"), (1.0, "")])
def test_a_pipeline_draws_what_the_bridge_draws(
    vision: str, connector: Any, language: dict[str, Any], guidance: float, negative: str
) -> None:
    bridge = compose(vision, connector, **language)
    expected = drawn(bridge, guidance, negative)
    found = piped(bridge, to_diffusers(bridge), guidance, negative)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert torch.equal(drawn(bridge, guidance, negative), expected), "the bridge's own denoiser has no hook"


def test_prompts_make_a_difference_in_a_pipeline() -> None:
    bridge = compose("sd", ELLA)
    first = piped(bridge, to_diffusers(bridge), 3.0, "")
    other = piped(bridge, to_diffusers(bridge), 3.0, "blue")
    assert (first - other).abs().max() > 1e-2


@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
@pytest.mark.parametrize("connector", ["lavi", ELLA])
def test_pictures_are_changed_and_filled_in(task: str, connector: Any) -> None:
    bridge = compose("sd", connector)
    pipe = to_diffusers(bridge, task)
    pipe.set_progress_bar_config(disable=True)
    size = bridge.vision.default_size
    given: dict[str, Any] = {"image": Image.new("RGB", (size, size), (200, 30, 30))}
    if task == "inpainting":
        given["mask_image"] = Image.fromarray(np.tri(size, dtype=np.uint8) * 255)
    pictures = [
        np.asarray(
            pipe(
                **prompt_inputs(bridge, prompt),
                **given,
                height=size,
                width=size,
                strength=0.9,
                num_inference_steps=4,
                guidance_scale=3.0,
                generator=torch.Generator().manual_seed(0),
            ).images[0],
            np.int16,
        )
        for prompt in PROMPTS
    ]
    assert pictures[0].shape == (size, size, 3)
    assert np.abs(pictures[0] - pictures[1]).max() > 1


def test_what_a_pipeline_cannot_do_is_said() -> None:
    with pytest.raises(RecipeError, match="have no effect"):
        prompt_inputs(compose("pixart", "query"), PROMPTS, prompt_weighting=True)
    bridge = compose("pixart", "lavi")
    with pytest.raises(RecipeError, match=r"did you mean 'inpainting'"):
        to_diffusers(bridge, "inpaint")
    with pytest.raises(ModelError, match="no image-to-image pipeline"):
        to_diffusers(bridge, "image-to-image")
    with pytest.raises(RecipeError, match="one negative prompt or one for each"):
        prompt_inputs(bridge, PROMPTS, ["a", "b", "c"])
    with pytest.raises(ModelError, match="'auraflow' has no Diffusers pipeline"):
        to_diffusers(compose("auraflow", "lavi"))
    with pytest.raises(ModelError, match="differ in length"):
        prompt_inputs(compose("sd3", "lavi"), PROMPTS)
    bridge = compose("sd", "lavi")
    pipe = to_diffusers(bridge)
    inputs = prompt_inputs(bridge, PROMPTS)
    with pytest.raises(ModelError, match="must have width 49, found 48"):
        pipe(
            prompt_embeds=inputs["prompt_embeds"][..., 1:],
            negative_prompt_embeds=inputs["negative_prompt_embeds"][..., 1:],
            num_inference_steps=1,
        )
    with pytest.raises(ModelError, match="to the denoiser's blocks"):
        connect(pipe, compose("sd", "llmdiff"))


def test_a_controlnet_hears_the_bridge() -> None:
    bridge = compose("sd", {"kind": "ella", "latents": 3, "blocks": 1, "heads": 4})
    family = registry.load_kind("vision", "sd")
    plain = family(family.Config(source="random")).backbone
    control = diffusers.ControlNetModel.from_unet(plain, conditioning_embedding_out_channels=(8, 16, 16))
    torch.manual_seed(0)
    for value in control.parameters():
        value.data = 0.1 * torch.randn(value.shape)
    pipe = to_diffusers(bridge, controlnet=control)
    assert isinstance(pipe, diffusers.StableDiffusionControlNetPipeline)
    pipe.set_progress_bar_config(disable=True)

    def drawn(level: float, prompt: str = PROMPTS[0]) -> torch.Tensor:
        picture = torch.full((1, 3, 32, 32), level)
        noise = torch.Generator().manual_seed(0)
        options = prompt_inputs(bridge, prompt)
        found: torch.Tensor = pipe(
            image=picture, num_inference_steps=2, generator=noise, output_type="latent", **options
        ).images
        return found

    assert (drawn(0.0) - drawn(1.0)).abs().max() > 1e-3
    assert (drawn(0.0) - drawn(0.0, PROMPTS[1])).abs().max() > 1e-4
    assert not control._forward_pre_hooks
    masked = compose("sd", "lavi")
    pipe = to_diffusers(masked, controlnet=control)
    with pytest.raises(ModelError, match="a ControlNet takes no mask"):
        pipe(
            image=torch.zeros(1, 3, 32, 32), num_inference_steps=1, **prompt_inputs(masked, "a longer prompt")
        )
    with pytest.raises(ModelError, match="pipeline with a ControlNet"):
        to_diffusers(compose("sana", "lavi"), "image-to-image", controlnet=control)
