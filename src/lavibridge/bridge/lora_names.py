"""Finds the layer that a key of a LoRA file names, in the naming schemes of other tools.

    down_blocks.0.attentions.0...attn1.to_q   .lora_A.weight      Diffusers and PEFT, with their prefixes
    ...attn1.processor.to_q_lora              .down.weight        Diffusers before 0.22
    lora_unet_down_blocks_0_...attn1_to_q     .lora_down.weight   kohya's scripts, underscores for dots
    input_blocks.1.1...attn1.to_q             (either)            the layout of the published U-Nets
    lora_te1_text_model_encoder_layers_0_...  (either)            the image model's own text encoder

The search compares a key with the names of the network's own layers in each scheme, underscores for dots, so
that it only finds layers that exist. The published layout is that of CompVis and Stability (Rombach et al.
2022, arXiv 2112.10752; Podell et al. 2023, arXiv 2307.01952).
"""

import re
from collections.abc import Iterator, Mapping

from torch import nn

from lavibridge.core.low_rank import named_layers

DENOISER_PREFIXES = (
    "base_model_model_",
    "lora_unet_",
    "lora_transformer_",
    "unet_",
    "transformer_",
    "model_diffusion_model_",
    "diffusion_model_",
    "module_",
    "lycoris_",
)
TEXT_ENCODER_PREFIXES = ("base_model_model_", "lora_te_", "lora_te1_", "text_encoder_", "module_")
_U_NET = "UNet2DConditionModel"
"""The class of Diffusers whose published layout has other names."""
_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESIDUAL_BLOCKS = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def denoiser_lora_names(network: nn.Module) -> dict[str, str]:
    """Every scheme's name of a denoiser's layer, underscores for dots -> the layer's own name."""
    own = list(named_layers(network))
    known = {_flat(name): name for name in own}
    for name in own:
        for other in (*_older(name), *_published(name, network, own)):
            known.setdefault(_flat(other), name)
    return known


def text_encoder_lora_names(network: nn.Module) -> dict[str, str]:
    """The same for CLIP's layers, which earlier versions keep below `text_model`."""
    known: dict[str, str] = {}
    for name in named_layers(network):
        stem, _, last = name.rpartition(".")
        older = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}.get(last)
        for other in (name, *([f"{stem}.{older}_lora"] if older else [])):
            known[_flat(other)] = known[_flat(f"text_model.{other}")] = name
    return known


def find_lora_layer(key: str, known: Mapping[str, str], prefixes: tuple[str, ...]) -> tuple[str, str] | None:
    """Split a key into the layer that it names and the rest; None if no layer has such a name."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        for name in _bare(_flat(".".join(parts[:count])), prefixes):
            if name in known:
                return known[name], ".".join(parts[count:])
    return None


def _bare(name: str, prefixes: tuple[str, ...]) -> Iterator[str]:
    """Yield the name, then the name without its first prefix, without the next, and so on."""
    yield name
    shorter = next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), None)
    if shorter:
        yield from _bare(shorter, prefixes)


def _flat(name: str) -> str:
    return name.replace(".processor.", ".").replace(".", "_")


def _older(name: str) -> list[str]:
    """The name of an attention layer in versions where it was part of a processor."""
    return [f"{name.removesuffix('.0')}_lora"] if re.search(r"\.to_(q|k|v|out\.0)$", name) else []


def _published(name: str, network: nn.Module, own: list[str]) -> list[str]:
    """The name in the layout of the published U-Nets, if there is one."""
    if type(network).__name__ != _U_NET:
        return []
    if name in _OUTSIDE_BLOCKS:
        return [_OUTSIDE_BLOCKS[name]]
    each = network.config.layers_per_block  # type: ignore[union-attr]
    found = re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)", name)
    if found is None or not isinstance(each, int):
        return []
    side, block, kind, index, inner = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    inner = _IN_RESIDUAL_BLOCKS.get(inner, inner)
    if side == "mid":
        return [f"middle_block.{2 * index if kind == 'resnets' else 1}.{inner}"]
    if kind == "downsamplers":
        return [f"input_blocks.{(block + 1) * (each + 1)}.0.op"]
    if kind == "upsamplers":
        last = any(other.startswith(f"up_blocks.{block}.attentions.") for other in own)
        return [f"output_blocks.{block * (each + 1) + each}.{2 if last else 1}.conv"]
    place = block * (each + 1) + index + (1 if side == "down" else 0)
    return [f"{'input' if side == 'down' else 'output'}_blocks.{place}.{int(kind == 'attentions')}.{inner}"]
