"""A bridge's parts as a Diffusers pipeline: image to image, inpainting, ControlNet and whatever else it has.

    pipe = to_diffusers(bridge)
    image = pipe(**prompt_inputs(bridge, ["a red circle"])).images[0]

No text encoder is inside: prompts become embeddings here. The denoiser's weights are the bridge's own, not
copies; the hook in front of it (`pipeline_hook.py`) is the pipeline's.
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
    needs_pipeline_hook,
    require_diffusers_model,
    runs_at_each_step,
)

_TASKS = {
    "text-to-image": None,
    "image-to-image": "AutoPipelineForImage2Image",
    "inpainting": "AutoPipelineForInpainting",
}
"""Task -> what turns the family's pipeline into one for it."""


def to_diffusers(bridge: Bridge, task: str = "text-to-image", controlnet: Any | None = None) -> Any:
    """A pipeline of the vision model's family, with UniPC as its sampler; call it with `prompt_inputs`.

    With a ``controlnet`` of Diffusers, made for the same denoiser, it is the family's ControlNet pipeline.
    The bridge is put into evaluation mode, and what changes the pipeline's weights changes the bridge's.
    Raises RecipeError for an unknown task, ModelError where Diffusers has no such pipeline for the family.
    """
    if task not in _TASKS:
        known = tuple(_TASKS)
        raise RecipeError(f"there is no task '{task}'{did_you_mean(task, known)} (tasks: {', '.join(known)})")
    vision, pipeline = require_diffusers_model(bridge), _pipeline_class(bridge)
    require_whole_weights(bridge, "make a pipeline of")
    bridge.eval()
    shape = vision.latent_shape(vision.default_size, vision.default_size)
    own = {
        vision.denoiser_folder: _with_own_hooks(vision.backbone),
        "vae": vision.autoencoder,
        "scheduler": make_sampler(vision.scheduler, shift=vision.flow_shift(shape)),
        "requires_safety_checker": False,
        "force_zeros_for_empty_prompt": False,
        "add_watermarker": False,
    }
    converted = _TASKS[task] if controlnet is None else _TASKS[task] or "AutoPipelineForText2Image"
    control = {} if controlnet is None else {"controlnet": _with_own_hooks(controlnet)}
    with warnings.catch_warnings():
        # Settings of old schedulers are changed with a warning; the scheduler that counts comes in below.
        warnings.filterwarnings("ignore", category=FutureWarning)
        pipe = pipeline(**{name: own.get(name) for name in inspect.signature(pipeline).parameters})
        if converted is not None:
            try:
                pipe = getattr(diffusers, converted).from_pipe(pipe, **control)
            except ValueError as error:
                requested = f"{task} pipeline{' with a ControlNet' if control else ''}"
                raise ModelError(
                    f"Diffusers has no {requested} beside its {pipeline.__name__}: use text-to-image "
                    "without one"
                ) from error
    pipe.scheduler = make_sampler(vision.scheduler, shift=vision.flow_shift(shape))
    connect(pipe, bridge)
    return pipe


@torch.no_grad()
def prompt_inputs(
    bridge: Bridge,
    prompts: str | Sequence[str],
    negative_prompts: str | Sequence[str] = "",
    prompt_weighting: bool = False,
) -> dict[str, Any]:
    """Arguments of the pipeline's call: embeddings of prompts and of what to lead away from, masks, pooled.

    One negative prompt serves all prompts. ``prompt_weighting`` reads brackets as `BridgePipeline` does. You
    give steps, guidance, size, images and the rest. Raises ModelError where prompts differ in length and the
    pipeline takes no mask.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    negative = (
        [negative_prompts] * len(texts) if isinstance(negative_prompts, str) else list(negative_prompts)
    )
    if not texts or len(negative) != len(texts):
        raise RecipeError(
            f"give prompts, and one negative prompt or one for each: found {len(texts)} and {len(negative)}"
        )
    pipeline = _pipeline_class(bridge)
    weighted = [read_emphasis(prompt, prompt_weighting, is_negative=True) for prompt in negative]
    features = _features(bridge, [*weighted, *(read_emphasis(prompt, prompt_weighting) for prompt in texts)])
    if runs_at_each_step(bridge):
        embeddings, width = pack_features(features), bridge.vision.spec.pooled
        mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        pooled = None if width is None else embeddings.new_zeros(len(embeddings), width)
    else:
        made = bridge.connector(features)
        embeddings, mask, pooled = made.tokens, made.mask, made.pooled
        if needs_pipeline_hook(bridge, pipeline):
            embeddings = torch.cat([mask[..., None].to(embeddings), embeddings], dim=-1)
        elif not bridge.vision.honours_mask and not bool(mask.all()):
            raise ModelError(
                "this pipeline takes no mask and the prompts differ in length (the negative one is counted): "
                "set see_padding in the language model, or use BridgePipeline"
            )
    taken = inspect.signature(pipeline.__call__).parameters
    # Some pipelines have "" for the negative prompt, and a plan of their own for the picture's size.
    fixed = {"negative_prompt": None, "use_resolution_binning": False}
    inputs: dict[str, Any] = {name: value for name, value in fixed.items() if name in taken}
    values = {"prompt_embeds": embeddings, "prompt_attention_mask": mask, "pooled_prompt_embeds": pooled}
    for name, value in values.items():
        if name in taken and value is not None:
            inputs[f"negative_{name}"], inputs[name] = value.chunk(2)
    return inputs


def _pipeline_class(bridge: Bridge) -> Any:
    """The pipeline that the vision model's denoiser goes into; raises ModelError where none is known."""
    name = require_diffusers_model(bridge).pipeline_class
    if name is None:
        kind = registry.kind_of("vision", bridge.vision)
        raise ModelError(
            f"the family '{kind}' names no Diffusers pipeline for its denoiser: use BridgePipeline"
        )
    return getattr(diffusers, name)


def _features(bridge: Bridge, prompts: Sequence[WeightedPrompt]) -> TextFeatures:
    """The prompts' features as `BridgePipeline` computes them."""
    check_word_weights(prompts, bridge.connector)
    warn_about_long_prompts(prompts, bridge.language)
    encoded = encode_prompts(bridge, prompts, len(prompts))
    return TextFeatures.pad([encoded[prompt].features for prompt in prompts])


def _with_own_hooks(denoiser: Any) -> Any:
    """The same module with the same weights, but for the hooks in front of it."""
    twin = copy.copy(denoiser)
    for name in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
        vars(twin)[name] = OrderedDict()
    return twin
