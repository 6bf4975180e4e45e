"""Turns a bridge into a Diffusers pipeline: text to image, image to image, inpainting and ControlNet.

    pipe = to_diffusers(bridge)
    image = pipe(**prompt_inputs(bridge, ["a red circle"])).images[0]

The pipeline has no text encoder: `prompt_inputs` turns prompts into embeddings. The denoiser shares its
weights with the bridge; only its hook (`pipeline_hook.py`) belongs to the pipeline.
"""

import copy
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import diffusers
import torch

from lavibridge.bridge import Bridge
from lavibridge.bridge.weight_checks import require_whole_weights
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError, RecipeError, did_you_mean
from lavibridge.generation.checks import check_word_weights, warn_about_long_prompts
from lavibridge.generation.emphasis import WeightedPrompt, read_emphasis
from lavibridge.generation.prompt_encoding import encode_prompts
from lavibridge.generation.sampling import make_sampler
from lavibridge.interop.packing import pack_features
from lavibridge.interop.pipeline_hook import (
    connect,
    differing_lengths,
    needs_pipeline_hook,
    require_diffusers_model,
)
from lavibridge.vision.hf import DiffusersModel

_TASKS = {
    "text-to-image": None,
    "image-to-image": "AutoPipelineForImage2Image",
    "inpainting": "AutoPipelineForInpainting",
}
"""Task -> the class that converts the family's pipeline to it."""


def to_diffusers(bridge: Bridge, task: str = "text-to-image", controlnet: Any | None = None) -> Any:
    """Make a Diffusers pipeline of the vision model's family; call it with `prompt_inputs`.

    ``task`` is text-to-image, image-to-image or inpainting. A Diffusers ``controlnet`` for the same denoiser
    makes it the family's ControlNet pipeline. It samples with UniPC; image-to-image and inpainting of flow
    models use the model's own scheduler. Puts the bridge into evaluation mode. The pipeline shares the
    bridge's weights and layers, so what is loaded into one (LoRA, an IP-Adapter) changes both. Raises
    RecipeError for an unknown task, and ModelError if Diffusers has no such pipeline for the family.
    """
    if task not in _TASKS:
        known = tuple(_TASKS)
        raise RecipeError(
            f"unknown task '{task}'{did_you_mean(task, known)} (choose from {', '.join(known)})"
        )
    vision, pipeline = require_diffusers_model(bridge), _pipeline_class(bridge)
    require_whole_weights(bridge, "make a pipeline of")
    bridge.eval()
    own = {
        vision.denoiser_folder: _with_own_hooks(vision.backbone),
        "vae": vision.autoencoder,
        "scheduler": _pipeline_sampler(vision, task),
        "requires_safety_checker": False,
        "force_zeros_for_empty_prompt": False,
        "add_watermarker": False,
    }
    converted = _TASKS[task] if controlnet is None else _TASKS[task] or "AutoPipelineForText2Image"
    control = {} if controlnet is None else {"controlnet": _with_own_hooks(controlnet)}
    with warnings.catch_warnings():
        # Diffusers warns as it updates settings of old schedulers; this scheduler is replaced below.
        warnings.filterwarnings("ignore", category=FutureWarning)
        pipe = pipeline(**{name: own.get(name) for name in inspect.signature(pipeline).parameters})
        if converted is not None:
            try:
                pipe = getattr(diffusers, converted).from_pipe(pipe, **control)
            except ValueError as error:
                requested = f"{task} pipeline{' with a ControlNet' if control else ''}"
                raise ModelError(
                    f"Diffusers has a {pipeline.__name__} but no {requested}: use text-to-image without a "
                    "ControlNet"
                ) from error
    pipe.scheduler = _pipeline_sampler(vision, task)
    connect(pipe, bridge)
    return pipe


@torch.no_grad()
def prompt_inputs(
    bridge: Bridge,
    prompts: str | Sequence[str],
    negative_prompts: str | Sequence[str] | None = None,
    prompt_weighting: bool = False,
) -> dict[str, Any]:
    """Make the prompt arguments of the pipeline's call: embeddings, masks and pooled vectors.

    ``negative_prompts`` is one for all prompts or one for each. None means the empty prompt, and no negative
    prompt at all for pipelines that need none by default (``true_cfg_scale``, as in FLUX.1).
    ``prompt_weighting`` reads ``(red:1.3)`` as a weight, as in `BridgePipeline`. Pass steps, guidance, size,
    images and the rest yourself. Raises RecipeError if there are no prompts or their number differs from that
    of the negative prompts, and ModelError if prompts differ in length and the pipeline takes no mask.
    """
    pipeline = _pipeline_class(bridge)
    taken = inspect.signature(pipeline.__call__).parameters
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    negative = _negative_prompts(negative_prompts, len(texts), "true_cfg_scale" not in taken)
    if not texts or len(negative) not in (len(texts), 0):
        raise RecipeError(
            f"give prompts, and one negative prompt or one for each: found {len(texts)} and {len(negative)}"
        )
    weighted = [read_emphasis(prompt, prompt_weighting, is_negative=True) for prompt in negative]
    features = _features(bridge, [*weighted, *(read_emphasis(prompt, prompt_weighting) for prompt in texts)])
    if bridge.runs_at_each_step:
        embeddings, width = pack_features(features), bridge.vision.spec.pooled
        mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        pooled = None if width is None else embeddings.new_zeros(len(embeddings), width)
    else:
        made = bridge.connector(features)
        embeddings, mask, pooled = made.tokens, made.mask, made.pooled
        if needs_pipeline_hook(bridge, pipeline):
            embeddings = torch.cat([mask[..., None].to(embeddings), embeddings], dim=-1)
        elif not bridge.vision.honours_mask and not bool(mask.all()):
            raise differing_lengths("this pipeline")
    # Some pipelines default to "" as the negative prompt, or change the image's size by themselves.
    fixed = {"negative_prompt": None, "use_resolution_binning": False}
    inputs: dict[str, Any] = {name: value for name, value in fixed.items() if name in taken}
    values = {"prompt_embeds": embeddings, "prompt_attention_mask": mask, "pooled_prompt_embeds": pooled}
    for name, value in values.items():
        if name in taken and value is not None:
            inputs[name] = value[len(negative) :]
            if negative:
                inputs[f"negative_{name}"] = value[: len(negative)]
    return inputs


def _negative_prompts(prompts: str | Sequence[str] | None, count: int, is_needed: bool) -> list[str]:
    if prompts is None:
        return [""] * count if is_needed else []
    return [prompts] * count if isinstance(prompts, str) else list(prompts)


def _pipeline_sampler(vision: DiffusersModel, task: str) -> Any:
    """Make UniPC for the pipeline, with the model's shift, also where it depends on the image's size.

    A flow's pictures are noised by its own scheduler, because UniPC cannot do that (``scale_noise``).
    """
    if task != "text-to-image" and hasattr(vision.scheduler, "scale_noise"):
        return type(vision.scheduler).from_config(vision.scheduler.config)
    shape = vision.latent_shape(vision.default_size, vision.default_size)
    made = make_sampler(vision.scheduler, shift=vision.flow_shift(shape), spacing=vision.step_spacing)
    settings = vision.scheduler.config
    if settings.get("use_dynamic_shifting", False):
        names = ("time_shift_type", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
        made.register_to_config(use_dynamic_shifting=True, **{name: settings[name] for name in names})
    return made


def _pipeline_class(bridge: Bridge) -> Any:
    """The pipeline class of the vision model's family. Raises ModelError if the family names none."""
    name = require_diffusers_model(bridge).pipeline_class
    if name is None:
        kind = registry.kind_of("vision", bridge.vision)
        raise ModelError(
            f"the family '{kind}' has no Diffusers pipeline for its denoiser: use BridgePipeline"
        )
    return getattr(diffusers, name)


def _features(bridge: Bridge, prompts: Sequence[WeightedPrompt]) -> TextFeatures:
    """The prompts' features, computed as in `BridgePipeline`."""
    check_word_weights(prompts, bridge)
    warn_about_long_prompts([each for each in prompts if not each.is_negative], bridge.language)
    encoded = encode_prompts(bridge, prompts, len(prompts))
    return TextFeatures.pad([encoded[prompt].features for prompt in prompts])


def _with_own_hooks(denoiser: Any) -> Any:
    """Copy a module without its forward pre-hooks; both share weights and submodules."""
    twin = copy.copy(denoiser)
    for name in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
        vars(twin)[name] = OrderedDict()
    return twin
