"""Toys of the language models of today, as folders that the Transformers library itself saved.

A model that also reads images is saved whole, with its image tower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from lavibridge.language.parts.byte_tokens import TOY_IDS, byte_tokenizer

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 200,
    **TOY_IDS,
}
GROUPED = {**SIZES, "num_key_value_heads": 1}
HEADS = {**GROUPED, "head_dim": 8}
SLIDING = {**HEADS, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
QWEN_TOWER = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 2,
    "out_hidden_size": 16,
}
SECTIONS = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
HYBRID = {
    **HEADS,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "rope_parameters": {**SECTIONS, "mrope_section": [1, 0, 0], "partial_rotary_factor": 0.25},
}
GEMMA4 = {
    **HEADS,
    "num_hidden_layers": 4,
    "global_head_dim": 16,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": SIZES["vocab_size"],
    "num_kv_shared_layers": 2,
}
GEMMA4_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "position_embedding_size": 16,
}


@dataclass(frozen=True, kw_only=True)
class TextToy:
    """A toy of one architecture."""

    saved: str
    """The class in Transformers that is saved."""
    settings: Mapping[str, Any]
    kind: str = "auto_model"
    """The family that reads it."""
    is_causal: bool = True
    template: str = "<s> $A"
    lora: tuple[str, ...] = tuple(f"self_attn.{each}_proj" for each in "qkvo")
    """Ends of the names of the layers that take LoRA."""
    tower: str | None = None
    """What the names of the image tower's weights contain."""
    text: str | None = None
    """The class of its text part."""
    queries: bool = True
    """Whether the model accepts vectors in place of tokens."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the whole model."""


encoder = partial(TextToy, is_causal=False, template="<s> $A </s>")
TOYS: Mapping[str, TextToy] = {
    "qwen3_5": TextToy(
        saved="Qwen3_5ForConditionalGeneration",
        settings={"text_config": HYBRID, "vision_config": QWEN_TOWER},
        lora=(
            "linear_attn.out_proj",
            "linear_attn.in_proj_qkv",
            "linear_attn.in_proj_z",
            *TextToy.lora,
        ),
        tower="visual",
        text="Qwen3_5TextModel",
    ),
    "qwen3_vl": TextToy(
        saved="Qwen3VLForConditionalGeneration",
        settings={
            "text_config": {**HEADS, "rope_parameters": SECTIONS},
            "vision_config": {**QWEN_TOWER, "deepstack_visual_indexes": [0]},
        },
        tower="visual",
        text="Qwen3VLTextModel",
    ),
    "qwen2_5_vl": TextToy(
        saved="Qwen2_5_VLForConditionalGeneration",
        settings={
            "text_config": {**GROUPED, "rope_parameters": SECTIONS},
            "vision_config": {**QWEN_TOWER, "fullatt_block_indexes": [0], "window_size": 8},
        },
        tower="visual",
        text="Qwen2_5_VLTextModel",
    ),
    "gemma3": TextToy(
        saved="Gemma3ForConditionalGeneration",
        settings={"text_config": SLIDING, "vision_config": TOWER, "mm_tokens_per_image": 4},
        tower="vision_tower",
        text="Gemma3TextModel",
    ),
    "gemma4": TextToy(
        saved="Gemma4ForConditionalGeneration",
        settings={"text_config": GEMMA4, "vision_config": GEMMA4_TOWER, "audio_config": None},
        tower="vision_tower",
        text="Gemma4TextModel",
        queries=False,
    ),
    "mistral3": TextToy(
        saved="Mistral3ForConditionalGeneration",
        settings={
            "text_config": {**HEADS, "model_type": "mistral", "sliding_window": None},
            "vision_config": {**TOWER, "model_type": "pixtral"},
        },
        tower="vision_tower",
        text="MistralModel",
    ),
    "ministral3": TextToy(
        saved="Mistral3ForConditionalGeneration",
        settings={
            "text_config": {**HEADS, "model_type": "ministral3"},
            "vision_config": {**TOWER, "model_type": "pixtral"},
        },
        tower="vision_tower",
        text="Ministral3Model",
    ),
    "t5gemma2": encoder(
        saved="T5Gemma2ForConditionalGeneration",
        settings={
            "encoder": {
                "text_config": SLIDING,
                "vision_config": {**TOWER, "model_type": "siglip_vision_model"},
                "mm_tokens_per_image": 4,
            },
            "decoder": SLIDING,
        },
        kind="t5gemma2",
        template="<s> $A",
        lora=("q_proj", "k_proj", "v_proj", "o_proj"),
        tower="vision_tower",
        text="T5Gemma2TextEncoder",
    ),
    "smollm3": TextToy(saved="SmolLM3ForCausalLM", settings={**GROUPED, "num_hidden_layers": 4}),
    "glm4": TextToy(saved="Glm4ForCausalLM", settings=HEADS),
    "phi3": TextToy(
        saved="Phi3ForCausalLM", settings=GROUPED, lora=("self_attn.o_proj", "self_attn.qkv_proj")
    ),
    "gpt_oss": TextToy(
        saved="GptOssForCausalLM",
        settings={**SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "modernbert": encoder(
        saved="ModernBertForMaskedLM",
        settings={**SIZES, "local_attention": 8, "layer_types": ["full_attention", "sliding_attention"]},
        lora=("attn.Wqkv", "attn.Wo"),
    ),
    "xlm_roberta": encoder(
        saved="XLMRobertaForMaskedLM",
        settings=SIZES,
        kind="roberta",
        lora=("self.query", "self.key", "self.value", "attention.output.dense"),
    ),
}


def save_toy(name: str, folder: Path) -> Path:
    """Save a toy of the table with a tokenizer of bytes."""
    toy = TOYS[name]
    model = getattr(transformers, toy.saved)
    torch.manual_seed(0)
    model(model.config_class(**toy.settings)).save_pretrained(folder)
    byte_tokenizer(toy.template).save_pretrained(folder)
    return folder
