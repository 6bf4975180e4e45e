"""Writes pipelines of Diffusers as single files, in the layout of the models' own authors.

The maps are the inverse of Diffusers' conversion, so that a test goes there and back.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]
DENOISER = "model.diffusion_model."
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_FLUX = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
}
_FLUX_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_SD3 = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
}
_SD3_BLOCK = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
}
_SD3_ATTENTION = {
    "x_block.attn": "attn.to_q attn.to_k attn.to_v",
    "context_block.attn": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
    "x_block.attn2": "attn2.to_q attn2.to_k attn2.to_v",
}


def write_single_file(pipe: Any, file: Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a pipeline's denoiser, autoencoder and text encoders; returns the file."""
    save_file(single_file_state(pipe), file, metadata=dict(metadata or {}) or None)
    return file


def single_file_state(pipe: Any) -> State:
    """Return what a pipeline of Stable Diffusion, SDXL, Stable Diffusion 3 or FLUX has in its single file."""
    title = type(pipe).__name__
    first, second = getattr(pipe, "text_encoder", None), getattr(pipe, "text_encoder_2", None)
    if title == "StableDiffusionPipeline" and first.config.hidden_act == "gelu":  # Stable Diffusion 2
        text = _named("cond_stage_model.model.", open_clip_state(first))
    elif title == "StableDiffusionPipeline":
        text = _named("cond_stage_model.transformer.", clip_state(first))
    elif title == "StableDiffusionXLPipeline":
        text = _named("conditioner.embedders.0.transformer.", clip_state(first))
        text |= _named("conditioner.embedders.1.model.", open_clip_state(second))
    elif title == "StableDiffusion3Pipeline":
        text = _named("text_encoders.clip_l.transformer.", clip_state(first))
        text |= _named("text_encoders.clip_g.transformer.", clip_state(second))
        text |= _named("text_encoders.t5xxl.transformer.", _t5_state(pipe.text_encoder_3))
    else:
        text = _named("text_encoders.clip_l.transformer.", clip_state(first))
        text |= _named("text_encoders.t5xxl.transformer.", _t5_state(second))
    net = getattr(pipe, "unet", None) or pipe.transformer
    convert = {"U": unet_state, "S": sd3_state, "F": flux_state}[type(net).__name__[0]]
    state = _named(DENOISER, convert(net)) | _named("first_stage_model.", vae_state(pipe.vae)) | text
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def unet_state(unet: Any) -> State:
    """Return a U-Net's weights as CompVis names them."""
    per_block = unet.config.layers_per_block + 1
    state: State = {}
    for name, value in unet.state_dict().items():
        found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.*)", name)
        if found:
            side, block, part, layer, rest = found.groups()
            index = int(block) * per_block + int(layer)
            if part == "downsamplers":
                new = f"input_blocks.{(int(block) + 1) * per_block}.0.{rest.replace('conv.', 'op.')}"
            elif part == "upsamplers":
                has_attention = hasattr(unet.up_blocks[int(block)], "attentions")
                new = f"output_blocks.{(int(block) + 1) * per_block - 1}.{1 + has_attention}.{rest}"
            else:
                place = f"input_blocks.{index + 1}" if side == "down" else f"output_blocks.{index}"
                new = f"{place}.0.{_replaced(rest, _RESNET)}" if part == "resnets" else f"{place}.1.{rest}"
        elif name.startswith("mid_block.resnets."):
            _, _, layer, rest = name.split(".", 3)
            new = f"middle_block.{2 * int(layer)}.{_replaced(rest, _RESNET)}"
        elif name.startswith("mid_block.attentions.0."):
            new = name.replace("mid_block.attentions.0.", "middle_block.1.")
        else:
            new = _replaced(name, _UNET_ENDS)
        state[new] = value
    return state


def vae_state(vae: Any) -> State:
    """Return an autoencoder's weights as CompVis names them."""
    last = len(vae.config.block_out_channels) - 1
    state: State = {}
    for name, value in vae.state_dict().items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(
            r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", new
        )
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0." in new:
            new = _replaced(new.replace("mid_block.attentions.0.", "mid.attn_1."), _VAE_ATTENTION)
            value = value if value.ndim == 1 else value[:, :, None, None]
        state[new] = value
    return state


def clip_state(encoder: Any) -> State:
    """Return a CLIP text encoder's weights as Transformers named them before version 5."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": value
        for name, value in encoder.state_dict().items()
    }


def open_clip_state(encoder: Any) -> State:
    """Return a CLIP text encoder's weights as OpenCLIP names them."""
    old = clip_state(encoder)
    state: State = {}
    for name, value in old.items():
        if ".q_proj." in name:
            three = [old[name.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            new = name.replace("self_attn.q_proj.", "attn.in_proj_")
            state[_replaced(new, _OPEN_CLIP)] = torch.cat(three)
        elif name == "text_projection.weight":
            state["text_projection"] = value.T
        elif ".k_proj." not in name and ".v_proj." not in name:
            state[_replaced(name, _OPEN_CLIP)] = value
    return state


def sd3_state(net: Any) -> State:
    """Return a denoiser of Stable Diffusion 3 as its authors name it."""
    old = net.state_dict()
    last = net.config.num_layers - 1
    state = {"pos_embed": old["pos_embed.pos_embed"]}
    state |= _renamed(old, _SD3)
    state |= _swapped(old, "norm_out.linear", "final_layer.adaLN_modulation.1")
    for index in range(last + 1):
        block, new = f"transformer_blocks.{index}.", f"joint_blocks.{index}."
        state |= _renamed(old, {block + a: new + b for a, b in _SD3_BLOCK.items()})
        for end in ("weight", "bias"):
            for place, names in _SD3_ATTENTION.items():
                three = [old.get(f"{block}{each}.{end}") for each in names.split()]
                if three[0] is not None:
                    state[f"{new}{place}.qkv.{end}"] = torch.cat(three)
    place = f"joint_blocks.{last}.context_block.adaLN_modulation.1"
    return state | _swapped(old, f"transformer_blocks.{last}.norm1_context.linear", place)


def flux_state(net: Any) -> State:
    """Return a denoiser of FLUX.1 as its authors name it."""
    old = net.state_dict()
    state = _renamed(old, _FLUX) | _swapped(old, "norm_out.linear", "final_layer.adaLN_modulation.1")
    for index in range(net.config.num_layers):
        block, new = f"transformer_blocks.{index}.", f"double_blocks.{index}."
        state |= _renamed(old, {block + a: new + b for a, b in _FLUX_DOUBLE.items()})
        for side, names, added in (
            ("img", "to_q to_k to_v", ""),
            ("txt", "add_q_proj add_k_proj add_v_proj", "added_"),
        ):
            for end in ("weight", "bias"):
                three = [old[f"{block}attn.{each}.{end}"] for each in names.split()]
                state[f"{new}{side}_attn.qkv.{end}"] = torch.cat(three)
            for each, norm in (("q", "query"), ("k", "key")):
                state[f"{new}{side}_attn.norm.{norm}_norm.scale"] = old[
                    f"{block}attn.norm_{added}{each}.weight"
                ]
    for index in range(net.config.num_single_layers):
        block, new = f"single_transformer_blocks.{index}.", f"single_blocks.{index}."
        state |= _renamed(
            old, {f"{block}norm.linear": f"{new}modulation.lin", f"{block}proj_out": f"{new}linear2"}
        )
        for end in ("weight", "bias"):
            names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
            state[f"{new}linear1.{end}"] = torch.cat([old[f"{block}{each}.{end}"] for each in names])
        for each, norm in (("q", "query"), ("k", "key")):
            state[f"{new}norm.{norm}_norm.scale"] = old[f"{block}attn.norm_{each}.weight"]
    return state


def _t5_state(encoder: Any) -> State:
    return {"shared.weight": encoder.shared.weight} | {
        name: value for name, value in encoder.state_dict().items() if "embed_tokens" not in name
    }


def _named(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: value for name, value in state.items()}


def _replaced(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def _renamed(old: Mapping[str, Tensor], names: Mapping[str, str]) -> State:
    return {
        f"{new}.{end}": old[f"{before}.{end}"]
        for before, new in names.items()
        for end in ("weight", "bias")
        if f"{before}.{end}" in old
    }


def _swapped(old: Mapping[str, Tensor], before: str, new: str) -> State:
    """Scale and shift change places between the layouts."""
    return {f"{new}.{end}": torch.cat(old[f"{before}.{end}"].chunk(2)[::-1]) for end in ("weight", "bias")}
