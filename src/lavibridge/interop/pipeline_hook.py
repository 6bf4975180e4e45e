"""A forward pre-hook that passes to a pipeline's denoiser what the pipeline has no argument for.

    connector runs once             [mask | tokens]  --hook-->                tokens, mask
    runs at each step (ELLA), or    [features]       --hook, connector, t-->  tokens, mask, pooled,
    per block (LLMDiff)                                                       attention in blocks

Stable Diffusion's pipelines take no mask, and no pipeline passes the time to a connector. Therefore extra
columns of the prompt embeddings carry the mask or the features.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.interop.packing import packed_columns, unpack_features
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.padding import padding_mask


def require_diffusers_model(bridge: Bridge) -> DiffusersModel:
    """Return the bridge's vision model. Raises ModelError if it is not a Diffusers model."""
    if not isinstance(bridge.vision, DiffusersModel):
        raise ModelError(
            f"'{bridge.vision.config.source}' is not a Diffusers model, so it has no Diffusers pipeline: use "
            "BridgePipeline"
        )
    return bridge.vision


def needs_pipeline_hook(bridge: Bridge, pipeline: type[Any]) -> bool:
    """Whether a pipeline's prompt embeddings carry more than the conditioning's tokens."""
    takes_mask = "prompt_attention_mask" in inspect.signature(pipeline.__call__).parameters
    return bridge.runs_at_each_step or (bridge.vision.honours_mask and not takes_mask)


def connect(pipe: Any, bridge: Bridge) -> None:
    """Make a pipeline's denoiser accept the bridge's prompt embeddings, and from then on no others.

    Pipelines of ``to_diffusers`` are already connected; a pipeline from a folder exported as `diffusers` is
    not. Raises ModelError if the connector is per-block and this denoiser does not support that.
    """
    vision = require_diffusers_model(bridge)
    denoiser = getattr(pipe, vision.denoiser_folder)
    if lora.has_lora(denoiser):
        denoiser.register_forward_pre_hook(_require_active_lora)
    if not needs_pipeline_hook(bridge, type(pipe)):
        return
    if bridge.connector.per_block:
        name, weight = next(denoiser.named_parameters())
        is_shared = weight is dict(bridge.vision.backbone.named_parameters()).get(name)
        speaks = "cross_attention_kwargs" in inspect.signature(denoiser.forward).parameters
        if not speaks or not is_shared:
            raise ModelError(
                "a per-block connector adds attention to the denoiser's blocks, which this pipeline does not "
                "support: use BridgePipeline, or to_diffusers(bridge) with a U-Net or PixArt"
            )
    width = _columns(bridge)

    def before(denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        embeddings = kwargs["encoder_hidden_states"]
        if embeddings.shape[-1] != width:
            raise ModelError(
                f"the prompt embeddings must have width {width}, found {embeddings.shape[-1]}: make them "
                "with prompt_inputs(bridge, prompts)"
            )
        t = _timestep(args, kwargs) / denoiser.config.get("timestep_scale", 1.0)
        made = _conditioning(bridge, embeddings, t * vision.pipeline_time_divisor)
        return args, kwargs | _arguments(made, kwargs, embeddings.dtype)

    denoiser.register_forward_pre_hook(before, with_kwargs=True)
    control = getattr(pipe, "controlnet", None)
    if control is not None:
        control.register_forward_pre_hook(_before_control(bridge, vision), with_kwargs=True)


def _require_active_lora(denoiser: Any, args: tuple[Any, ...]) -> None:
    """Raise ModelError if another adapter has switched off the bridge's LoRA, as loading one does."""
    adapters = list(getattr(denoiser, "peft_config", {}))
    if len(adapters) > 1 and not lora.is_lora_active(denoiser):
        raise ModelError(
            f"the denoiser has the adapters {', '.join(adapters)}, and the bridge's own LoRA, which PEFT "
            f"calls 'default', is switched off: call pipe.set_adapters({adapters}) with all that should "
            "draw, or add LoRA files to the bridge by read_lora_file"
        )


def _timestep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return torch.as_tensor(kwargs["timestep"] if "timestep" in kwargs else args[1])


def _before_control(bridge: Bridge, vision: DiffusersModel) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """A hook that passes the denoiser's conditioning to a ControlNet."""

    def before(control: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        embeddings = kwargs.get("encoder_hidden_states")
        if embeddings is None:  # a ControlNet without text
            return args, kwargs
        made = _conditioning(bridge, embeddings, _timestep(args, kwargs) * vision.pipeline_time_divisor)
        if not bool(made.mask.all()):
            raise differing_lengths("a ControlNet")
        if control.config.get("force_zeros_for_pooled_projection", False):
            made = replace(made, pooled=None)
        return args, kwargs | _arguments(replace(made, blocks={}), kwargs, embeddings.dtype)

    return before


def differing_lengths(taker: str) -> ModelError:
    """Return the error for prompts of different lengths where padding cannot be hidden."""
    return ModelError(
        f"{taker} takes no mask, but the prompts, negative ones included, differ in length: give them a "
        "fixed number of tokens by see_padding of the language model or by a connector such as 'resampler' "
        "or 'ella', or use BridgePipeline"
    )


def _conditioning(bridge: Bridge, embeddings: Float[Tensor, "batch token column"], t: Tensor) -> Conditioning:
    if not bridge.runs_at_each_step:
        return Conditioning(tokens=embeddings[..., 1:], mask=embeddings[..., 0] > 0.5)
    place = next(bridge.connector.parameters()).device  # the pipeline may have moved its denoiser elsewhere
    given = embeddings.to(place, torch.float32)
    features = unpack_features(given, bridge.connector.reading, bridge.language.spec)
    made = bridge.connector(features, t.to(place).expand(len(given)))
    if not bridge.vision.honours_mask and not bool(made.mask.all()):
        raise differing_lengths("this pipeline")
    back = embeddings.device
    pooled = None if made.pooled is None else made.pooled.to(back)
    return replace(made, tokens=made.tokens.to(back), mask=made.mask.to(back), pooled=pooled)


def _arguments(made: Conditioning, named: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The denoiser's arguments that the conditioning replaces."""
    changed: dict[str, Any] = {"encoder_hidden_states": made.tokens.to(dtype)}
    mask = padding_mask(made.mask)
    if mask is not None or "encoder_attention_mask" in named:
        changed["encoder_attention_mask"] = mask
    if made.blocks:
        changed["cross_attention_kwargs"] = {
            **(named.get("cross_attention_kwargs") or {}),
            "blocks": made.blocks,
        }
    if made.pooled is not None and "pooled_projections" in named:
        changed["pooled_projections"] = made.pooled.to(dtype)
    if made.pooled is not None and "text_embeds" in (named.get("added_cond_kwargs") or {}):
        changed["added_cond_kwargs"] = {**named["added_cond_kwargs"], "text_embeds": made.pooled.to(dtype)}
    if named.get("txt_ids") is not None:
        changed["txt_ids"] = named["txt_ids"].new_zeros(made.tokens.shape[1], named["txt_ids"].shape[-1])
    return changed


def _columns(bridge: Bridge) -> int:
    if bridge.runs_at_each_step:
        return packed_columns(bridge.connector.reading, bridge.language.spec)
    return 1 + bridge.vision.spec.context
