"""Diffusers' own pipelines for a bridge: tasks, ControlNet, IP-Adapter, LoRA on top, callbacks, offload."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from added_lora import some_pairs, write_kohya
from PIL import Image
from piped_bridges import ELLA, PROMPTS, compose, drawn, piped
from torch import Tensor
from toy_pipelines import pipeline

from lavibridge import connect, export, prompt_inputs, read_lora_file, to_diffusers
from lavibridge.core.errors import ModelError
from lavibridge.generation.noise import initial_noise

pytestmark = [
    # Diffusers reads torch tensors by a NumPy call that NumPy 2 warns of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers"),
    pytest.mark.usefixtures("one_thread"),
]
RESAMPLER = {"kind": "resampler", "latents": 5, "blocks": 1, "heads": 4}
FLUX_OPTIONS = {"ella": ELLA, "resampler": RESAMPLER, "lavi": "lavi"}


def images(pipe: Any, bridge: Any, prompt: str, **options: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    size = bridge.vision.default_size
    output = pipe(
        **prompt_inputs(bridge, prompt),
        **{"height": size, "width": size, "num_inference_steps": 2, "output_type": "latent", **options},
        generator=torch.Generator().manual_seed(0),
    )
    return output.images


@pytest.mark.parametrize("connector", FLUX_OPTIONS)
@pytest.mark.parametrize("size", [32, 48])
def test_flux_draws_what_the_bridge_draws_at_any_size(connector: str, size: int) -> None:
    """Its shift depends on the size, its time is divided, and its latents are packed."""
    bridge = compose("flux", FLUX_OPTIONS[connector])
    bridge.vision.default_size = size
    prompts = PROMPTS if connector != "lavi" else PROMPTS[:1]
    expected = drawn(bridge, 1.0, "", prompts)
    pipe = to_diffusers(bridge)
    assert isinstance(pipe, diffusers.FluxPipeline)
    shape = bridge.vision.latent_shape(size, size)
    noise = initial_noise(shape, (4, 5)[: len(prompts)])
    packed = pipe._pack_latents(noise, *noise.shape)
    pipe.set_progress_bar_config(disable=True)
    found = pipe(
        **prompt_inputs(bridge, prompts, prompt_weighting=True),
        latents=packed,
        num_inference_steps=3,
        height=size,
        width=size,
        output_type="latent",
    ).images
    found = pipe._unpack_latents(found, size, size, pipe.vae_scale_factor)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_flux_takes_negative_prompts_for_true_guidance_only() -> None:
    bridge = compose("flux", RESAMPLER)
    assert not [name for name in prompt_inputs(bridge, PROMPTS) if name.startswith("negative_prompt_embeds")]
    pipe, guided = to_diffusers(bridge), prompt_inputs(bridge, PROMPTS[0], "blue")
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "height": 32, "width": 32, "output_type": "latent"}
    plain, other = (
        pipe(**guided, **options, true_cfg_scale=scale, generator=torch.Generator().manual_seed(0)).images
        for scale in (1.0, 3.0)
    )
    assert (plain - other).abs().max() > 1e-3


@pytest.mark.parametrize("vision", ["sd3", "flux"])
def test_prompts_of_different_lengths_need_a_fixed_number_of_tokens(vision: str) -> None:
    with pytest.raises(ModelError, match="a fixed number of tokens by see_padding"):
        prompt_inputs(compose(vision, "lavi"), PROMPTS)
    for connector in (ELLA, RESAMPLER):
        assert prompt_inputs(compose(vision, connector), PROMPTS)["prompt_embeds"].shape[0] == 2


@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
@pytest.mark.parametrize("vision", ["sdxl", "sd3", "flux"])
def test_pictures_are_changed_and_filled_in_by_every_family_that_has_the_task(task: str, vision: str) -> None:
    bridge = compose(vision, ELLA)
    pipe, size = to_diffusers(bridge, task), bridge.vision.default_size
    given: dict[str, Any] = {"image": Image.new("RGB", (size, size), (200, 30, 30)), "strength": 0.9}
    if task == "inpainting":
        given["mask_image"] = Image.fromarray(np.tri(size, dtype=np.uint8) * 255)
    first, other = (images(pipe, bridge, prompt, num_inference_steps=3, **given) for prompt in PROMPTS)
    assert first.isfinite().all()
    assert (first - other).abs().max() > 1e-4


def control_of(bridge: Any) -> Any:
    """A ControlNet for a toy's denoiser, drawn."""
    backbone = bridge.vision.backbone
    torch.manual_seed(0)
    if isinstance(backbone, diffusers.UNet2DConditionModel):
        made = diffusers.ControlNetModel.from_unet(
            backbone, conditioning_embedding_out_channels=(8, 16, 16), load_weights_from_unet=False
        )
    elif isinstance(backbone, diffusers.FluxTransformer2DModel):
        made = diffusers.FluxControlNetModel.from_config(backbone.config)
    else:
        made = diffusers.SD3ControlNetModel.from_config({**backbone.config, "num_layers": 1})
    for value in made.parameters():
        value.data = 0.1 * torch.randn(value.shape)
    return made


@pytest.mark.parametrize("vision", ["sdxl", "sd3", "flux"])
def test_a_controlnet_of_every_family_hears_the_bridge(vision: str) -> None:
    bridge = compose(vision, ELLA)
    control, size = control_of(bridge), bridge.vision.default_size
    pipe = to_diffusers(bridge, controlnet=control)
    assert "ControlNet" in type(pipe).__name__
    name = "image" if vision == "sdxl" else "control_image"
    pictures = [torch.full((1, 3, size, size), level) for level in (0.0, 1.0)]
    heard: list[Tensor] = []
    pipe.controlnet.register_forward_pre_hook(
        lambda module, args, kwargs: heard.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    dark, light = (images(pipe, bridge, PROMPTS[0], **{name: picture}) for picture in pictures)
    other = images(pipe, bridge, PROMPTS[1], **{name: pictures[0]})
    assert (dark - light).abs().max() > 1e-3
    assert (dark - other).abs().max() > 1e-4
    assert {each.shape[1:] for each in heard} == {(5, bridge.vision.spec.context)}, "tokens, not features"
    assert not control._forward_pre_hooks


def ip_adapter(unet: Any, width: int) -> dict[str, Any]:
    """An IP-Adapter's file, drawn: a projection to four tokens, keys and values of each cross-attention."""
    context = unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    layers = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
    state = {}
    for index, name in enumerate(layers):
        rows = unet.get_submodule(name).to_k.weight.shape[0]
        for side in ("k", "v"):
            state[f"{2 * index + 1}.to_{side}_ip.weight"] = draw(rows, context)
    projection = {
        "proj.weight": draw(4 * context, width),
        "proj.bias": draw(4 * context),
        "norm.weight": draw(context),
        "norm.bias": draw(context),
    }
    return {"image_proj": projection, "ip_adapter": state}


@pytest.mark.parametrize("connector", ["lavi", "ella"])
def test_an_ip_adapter_adds_a_picture_to_the_bridge_s_prompt(connector: str) -> None:
    bridge = compose("sd", ELLA if connector == "ella" else "lavi")
    pipe = to_diffusers(bridge)
    pipe.load_ip_adapter(
        ip_adapter(bridge.vision.backbone, 12), subfolder=None, weight_name=None, image_encoder_folder=None
    )
    pictures = [torch.full((2, 1, 1, 12), level) for level in (0.0, 1.0)]
    first, other = (
        images(pipe, bridge, PROMPTS[0], ip_adapter_image_embeds=[picture]) for picture in pictures
    )
    assert (first - other).abs().max() > 1e-3
    second = images(pipe, bridge, PROMPTS[1], ip_adapter_image_embeds=[pictures[0]])
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("merged", [False, True], ids=["beside", "merged"])
@pytest.mark.filterwarnings("ignore:Adapter cannot be set when the model is merged:UserWarning")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_a_community_lora_is_stacked_on_the_bridge_s_own(merged: bool, tmp_path: Path) -> None:
    bridge = compose("sd", "lavi")
    folded = deepcopy(bridge)
    pairs = {
        name: pair
        for name, pair in some_pairs(bridge.vision.backbone, (2,)).items()
        if name.endswith(("to_q", "to_v"))
    }
    path = tmp_path / "style.safetensors"
    write_kohya(pairs, path, {}, alpha=1.0)
    if merged:
        bridge.merge()
    before = piped(bridge, to_diffusers(bridge), 3.0, "")
    pipe = to_diffusers(bridge)
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="style")
    with pytest.raises(ModelError, match=r"switched off: call pipe\.set_adapters\(\['default', 'style'\]\)"):
        piped(bridge, pipe, 3.0, "")
    pipe.set_adapters(["default", "style"], [1.0, 0.5])
    found = piped(bridge, pipe, 3.0, "")
    read_lora_file(folded, path, strength=0.5)
    expected = piped(folded, to_diffusers(folded), 3.0, "")
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (found - before).abs().max() > 1e-3


@pytest.mark.parametrize("vision", ["sd", "flux"])
def test_a_callback_runs_after_each_step_and_may_change_the_latents(vision: str) -> None:
    bridge = compose(vision, ELLA)
    pipe, seen = to_diffusers(bridge), []

    def on_step(pipe: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, tensors["prompt_embeds"].shape[-1]))
        return {"latents": tensors["latents"] + 1}

    options = {"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    plain = images(pipe, bridge, PROMPTS[0])
    changed = images(pipe, bridge, PROMPTS[0], callback_on_step_end=on_step, **options)
    width = prompt_inputs(bridge, PROMPTS[0])["prompt_embeds"].shape[-1]
    assert seen == [(0, width), (1, width)]
    assert (plain - changed).abs().max() > 0.5


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator to offload to")
def test_model_offload_needs_an_accelerator() -> None:
    pipe = to_diffusers(compose("sd", "lavi"))
    for offload in (pipe.enable_model_cpu_offload, pipe.enable_sequential_cpu_offload):
        with pytest.raises(RuntimeError, match="requires accelerator"):
            offload()


def test_a_pipeline_that_somebody_else_built_draws_by_prompt_embeds() -> None:
    """Encode with lavibridge, draw with any pipeline of Diffusers that has the bridge's denoiser."""
    bridge = compose("sd", "lavi")
    other = to_diffusers(compose("sd", "lavi"))
    parts = {**other.components, "unet": deepcopy(bridge.vision.backbone)}
    parts["scheduler"] = deepcopy(other.scheduler)
    mine = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    connect(mine, bridge)
    found = images(mine, bridge, PROMPTS[0])
    assert torch.equal(found, images(to_diffusers(bridge), bridge, PROMPTS[0]))


@pytest.mark.parametrize("vision", ["sd3", "flux"])
def test_an_exported_folder_draws_what_the_bridge_draws_and_does_other_tasks(
    vision: str, tmp_path: Path
) -> None:
    pipeline(vision).save_pretrained(tmp_path / "model")
    bridge = compose(vision, ELLA, source=str(tmp_path / "model"))
    export(bridge, "diffusers", tmp_path / "out")
    opened = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    connect(opened, bridge)
    live = to_diffusers(bridge)
    live.scheduler = deepcopy(opened.scheduler)
    expected = images(live, bridge, PROMPTS[0])
    found = images(opened, bridge, PROMPTS[0])
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    size = bridge.vision.default_size
    redraw = diffusers.AutoPipelineForImage2Image.from_pipe(opened)
    picture = {"image": Image.new("RGB", (size, size)), "strength": 0.9, "num_inference_steps": 3}
    first, other = (images(redraw, bridge, prompt, **picture) for prompt in PROMPTS)
    assert (first - other).abs().max() > 1e-4
