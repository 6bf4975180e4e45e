"""What the nodes meet in ComfyUI, around a toy denoiser, by the contract of ComfyUI's public source.

ComfyUI cannot be installed as a package, so these stand-ins state its contract (Comfy-Org/ComfyUI, read in
November 2026). Each names the file and function that it was read from; the words and the code are ours.
`test_contract.py` compares them with ComfyUI itself where that can be imported.

    comfy/model_patcher.py   ModelPatcher: clone, set_model_unet_function_wrapper, model_patches_to
    comfy/model_base.py      BaseModel._apply_model, extra_conds; SDXL.encode_adm, SD3, Flux: `y`
    comfy/model_sampling.py  EPS and CONST; timestep(sigma) of ModelSamplingDiscrete, -DiscreteFlow, -Flux
    comfy/conds.py           CONDCrossAttn.concat repeats, CONDRegular.can_concat wants equal shapes
    comfy/sampler_helpers.py convert_cond
    comfy/samplers.py        encode_model_conds, _calc_cond_batch
    comfy/ldm/modules/attention.py             BasicTransformerBlock._forward
    comfy/ldm/modules/diffusionmodules/openaimodel.py   UNetModel._forward: the numbers of the blocks
    comfy/sd.py, comfy/lora.py                 load_lora_for_models, load_lora
    execution.py             PromptExecutor: nodes and samplers run in torch.inference_mode
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Conditioning
from lavibridge.core.low_rank import named_layers
from lavibridge.vision.base import VisionModel

SIZES = 10
"""Width of a toy's part of `y` behind the pooled vector."""


class ModelSampling:
    """sigma -> the time that the network takes, and network output -> denoised latents."""

    def __init__(self, vision: VisionModel) -> None:
        self.sigmas = vision.sigmas / vision.alphas
        self.is_flow = vision.prediction_type == "flow"
        self.multiplier = 1.0 if type(vision.backbone).__name__.startswith("Flux") else 1000.0

    def timestep(self, sigma: Tensor) -> Tensor:
        """The nearest training step; of a flow, sigma times the multiplier (FLUX: 1)."""
        if self.is_flow:
            return sigma * self.multiplier
        distance = sigma.log() - self.sigmas.log()[:, None]
        return distance.abs().argmin(dim=0).view(sigma.shape)

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x if self.is_flow else x / (sigma.view(-1, 1, 1, 1) ** 2 + 1).sqrt()

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - output * sigma.view(-1, 1, 1, 1)


class BaseModel:
    """ComfyUI's model: a network that takes sigma, context and `y`."""

    def __init__(self, vision: VisionModel) -> None:
        self.vision = vision
        self.model_sampling = ModelSampling(vision)
        self.options: dict[str, Any] = {}
        for place, attention in cross_attention_places(vision.backbone):
            attention.set_processor(PatchedAttention(self, place))

    def extra_conds(self, **kwargs: Any) -> dict[str, Tensor]:
        """`c_crossattn`, and `y` where the model takes a pooled vector; unknown keys are ignored."""
        out = {"c_crossattn": kwargs["cross_attn"]}
        if self.vision.spec.pooled is not None:
            sizes = torch.zeros(1, SIZES if "UNet" in type(self.vision.backbone).__name__ else 0)
            out["y"] = torch.cat([kwargs["pooled_output"], sizes], dim=1)
        return out

    def repeats_crossattn(self) -> bool:
        """U-Nets repeat the shorter of two conditionings; SD3, FLUX and PixArt do not join them."""
        return "UNet" in type(self.vision.backbone).__name__

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return denoised latents; ``t`` is sigma."""
        assert c_crossattn is not None
        xc = self.model_sampling.calculate_input(t, x)
        time = self.model_sampling.timestep(t).float()
        width = self.vision.spec.pooled
        self.options = dict(transformer_options or {})
        steps = 1000.0 / self.model_sampling.multiplier if self.model_sampling.is_flow else 1.0
        given = Conditioning(
            tokens=c_crossattn,
            mask=torch.ones(c_crossattn.shape[:2], dtype=torch.bool),
            pooled=None if width is None else kwargs["y"][:, :width],
        )
        output = self.vision.predict(xc, steps * time, given)
        return self.model_sampling.calculate_denoised(t, output, x)


def cross_attention_places(network: Any) -> Iterator[tuple[tuple[str, int, int], Any]]:
    """Count the blocks of a U-Net as ComfyUI does: conv_in is input 0, an upsampler belongs to its block."""
    if not hasattr(network, "down_blocks"):
        return
    number = 1
    for block in network.down_blocks:
        for index in range(len(block.resnets)):
            if hasattr(block, "attentions"):
                yield from _attentions("input", number, block.attentions[index])
            number += 1
        number += block.downsamplers is not None
    yield from _attentions("middle", 0, network.mid_block.attentions[0])
    number = 0
    for block in network.up_blocks:
        for index in range(len(block.resnets)):
            if hasattr(block, "attentions"):
                yield from _attentions("output", number, block.attentions[index])
            number += 1


def _attentions(name: str, number: int, transformer: Any) -> Iterator[tuple[tuple[str, int, int], Any]]:
    for index, block in enumerate(transformer.transformer_blocks):
        yield (name, number, index), block.attn2


class PatchedAttention:
    """The cross-attention of a block, with the patches that transformer_options name."""

    def __init__(self, model: BaseModel, place: tuple[str, int, int]) -> None:
        self.model, self.place = model, place

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        options = self.model.options
        patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
        extra = {key: value for key, value in options.items() if key not in ("patches", "patches_replace")}
        extra |= {"block": self.place[:2], "block_index": self.place[2], "n_heads": attn.heads}
        n, context, value = hidden_states, encoder_hidden_states, None
        for patch in patches.get("attn2_patch", []):
            n, context, value = patch(n, context, context if value is None else value, extra)
        q, k, v = attn.to_q(n), attn.to_k(context), attn.to_v(context if value is None else value)
        found = replaced.get("attn2", {})
        key = self.place if self.place in found else self.place[:2]
        answer = found[key](q, k, v, extra) if key in found else plain_attention(q, k, v, extra)
        return attn.to_out[0](answer)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any]) -> Tensor:
    parts = (part.unflatten(-1, (extra["n_heads"], -1)).transpose(1, 2) for part in (q, k, v))
    return functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


class ModelPatcher:
    """A model with options and patches of its weights; clones share the model."""

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.patches: dict[str, list[tuple[float, Tensor]]] = {}

    def clone(self) -> "ModelPatcher":
        cloned = ModelPatcher(self.model)
        cloned.model_options = copy.deepcopy(self.model_options)
        cloned.patches = {name: list(value) for name, value in self.patches.items()}
        return cloned

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Any) -> None:
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def model_patches_to(self, device: Any) -> None:
        """Called with a device, and then with the number format of the weights."""
        wrapper = self.model_options.get("model_function_wrapper")
        if hasattr(wrapper, "to"):
            self.model_options["model_function_wrapper"] = wrapper.to(device)

    def add_patches(self, patches: Mapping[str, Tensor], strength_patch: float = 1.0) -> list[str]:
        for name, change in patches.items():
            self.patches.setdefault(name, []).append((strength_patch, change))
        return list(patches)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The weights with their patches, while the sampler runs."""
        weights = dict(self.model.vision.backbone.named_parameters())
        before = {name: weights[name].data.clone() for name in self.patches}
        for name, patches in self.patches.items():
            for strength, change in patches:
                weights[name].data += strength * change.reshape(weights[name].shape)
        yield
        for name, value in before.items():
            weights[name].data = value


def load_lora_for_models(
    model: ModelPatcher, clip: None, lora: Mapping[str, Tensor], strength_model: float, strength_clip: float
) -> tuple[ModelPatcher, None]:
    """Return a clone with W + strength alpha / rank up down, for the keys that ComfyUI knows."""
    names = list(named_layers(model.model.vision.backbone))
    keys = {f"lora_unet_{name.replace('.', '_')}": name for name in names}
    keys |= {f"transformer.{name}": name for name in names}
    changes: dict[str, Tensor] = {}
    used: set[str] = set()
    for key, name in keys.items():
        for up, down in ((".lora_up.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_A.weight")):
            if key + up in lora:
                factors = lora[key + up].flatten(1), lora[key + down].flatten(1)
                scale = float(lora[f"{key}.alpha"]) / len(factors[1])
                changes[f"{name}.weight"] = scale * factors[0] @ factors[1]
                used |= {key + up, key + down, f"{key}.alpha"}
    assert used == set(lora), "ComfyUI warns of each key that it does not know"
    patched = model.clone()
    patched.add_patches(changes, strength_model)
    return patched, None


COMFY_SD = SimpleNamespace(load_lora_for_models=load_lora_for_models)


@torch.inference_mode()
def calc_cond_batch(
    patcher: ModelPatcher, conds: list[list[list[Any]]], x: Tensor, sigma: Tensor
) -> list[Tensor]:
    """Return the denoised latents of each conditioning, as the sampler asks for them."""
    model, options = patcher.model, patcher.model_options
    patcher.model_patches_to(torch.device("cpu"))
    patcher.model_patches_to(torch.float16)
    rows: list[tuple[int, dict[str, Tensor]]] = []
    for number, cond in enumerate(conds):
        for tensor, extra in cond:
            made = model.extra_conds(cross_attn=tensor, **extra)
            size = len(x)
            rows.append(
                (number, {key: value.repeat(size, *[1] * (value.ndim - 1)) for key, value in made.items()})
            )
    outputs: list[Tensor] = [torch.zeros_like(x) for _ in conds]
    with patcher.patched():
        for batch in _batches(rows, model.repeats_crossattn()):
            numbers = [number for number, _ in batch]
            c: dict[str, Any] = _joined([made for _, made in batch])
            inputs, sigmas = torch.cat([x] * len(batch)), torch.cat([sigma] * len(batch))
            c["transformer_options"] = {
                **options["transformer_options"],
                "cond_or_uncond": numbers,
                "sigmas": sigma,
            }
            if "model_function_wrapper" in options:
                arguments = {"input": inputs, "timestep": sigmas, "c": c, "cond_or_uncond": numbers}
                output = options["model_function_wrapper"](model.apply_model, arguments)
            else:
                output = model.apply_model(inputs, sigmas, **c)
            for number, part in zip(numbers, output.chunk(len(batch)), strict=True):
                outputs[number] = part
    return outputs


def _batches(
    rows: list[tuple[int, dict[str, Tensor]]], repeats: bool
) -> list[list[tuple[int, dict[str, Tensor]]]]:
    """Conditionings that can be joined: of one width, and up to four times as long as each other."""
    first, *others = rows
    joined, alone = [first], []
    for row in others:
        one, other = first[1]["c_crossattn"].shape, row[1]["c_crossattn"].shape
        grown = math.lcm(one[1], other[1]) // min(one[1], other[1])
        fits = one == other or (repeats and one[2] == other[2] and grown <= 4)
        (joined if fits else alone).append(row)
    return [joined, *(_batches(alone, repeats) if alone else [])]


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    total = math.lcm(*(part["c_crossattn"].shape[1] for part in parts))
    same = [
        {**part, "c_crossattn": part["c_crossattn"].repeat(1, total // part["c_crossattn"].shape[1], 1)}
        for part in parts
    ]
    return {key: torch.cat([part[key] for part in same]) for key in same[0]}
