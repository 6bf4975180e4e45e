"""Writes toys as GGUF files: language models as llama.cpp's converter does, denoisers as their own does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from torch import Tensor

WORDS = ("<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz,.:")
"""The vocabulary of the toy T5."""
FIELDS = {"pad": "padding_token_id", "bos": "bos_token_id", "eos": "eos_token_id"}
PERMUTED = ("llama",)
"""Architectures whose queries and keys llama.cpp keeps in another order of rows."""


def write_gguf(
    backbone: Any,
    path: Path,
    architecture: str,
    words: Sequence[str],
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    tokenizer: str = "gpt2",
    **metadata: Any,
) -> Path:
    """Write the weights of a model of transformers, matrices in the format ``kind``.

    ``tokenizer`` is `gpt2` for bytes, `llama` or `t5` for word pieces. In the keys of ``metadata``, __ stands
    for a dot.
    """
    writer = GGUFWriter(path, architecture)
    settings = backbone.config
    _add_sizes(writer, settings)
    _add_words(writer, words, tokenizer, settings)
    for key, value in metadata.items():
        _add(writer, key.replace("__", "."), value)
    blocks = settings.num_hidden_layers
    number = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, blocks)
    for name, value in backbone.state_dict().items():
        known = names.get_name(f"model.{name}", (".weight", ".bias")) or names.get_name(
            name, (".weight", ".bias")
        )
        if known is None:
            assert name in ("encoder.embed_tokens.weight",), name  # tied to the shared table
            continue
        weights = _as_stored(name, value.float().numpy(), architecture, settings)
        stored = kind if weights.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(known, gguf.quants.quantize(weights, stored), raw_dtype=stored)
    if settings.model_type == "llama" and settings.rope_parameters["rope_type"] == "llama3":
        head = settings.hidden_size // settings.num_attention_heads
        plain = settings.rope_parameters["rope_theta"] ** -(np.arange(0, head, 2) / head)
        divisors = plain / backbone.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_denoiser(
    state: Mapping[str, Tensor],
    path: Path,
    architecture: str,
    kind: GGMLQuantizationType,
    **metadata: Any,
) -> Path:
    """Write a denoiser's tensors under these names; matrices whose rows fill whole blocks in ``kind``."""
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        _add(writer, key.replace("__", "."), value)
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    for name, value in state.items():
        weights = value.detach().float().numpy()
        fits = weights.ndim == 2 and weights.shape[1] % block == 0
        stored = kind if fits else GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(weights, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _as_stored(name: str, weights: np.ndarray, architecture: str, settings: Any) -> np.ndarray:
    if architecture in PERMUTED and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = settings.num_attention_heads if "q_proj" in name else settings.num_key_value_heads
        return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return weights + 1
    return weights


def _add_sizes(writer: GGUFWriter, settings: Any) -> None:
    writer.add_block_count(settings.num_hidden_layers)
    writer.add_embedding_length(settings.hidden_size)
    writer.add_head_count(settings.num_attention_heads)
    writer.add_vocab_size(settings.vocab_size)
    if settings.model_type in ("t5", "umt5"):
        writer.add_context_length(512)
        writer.add_feed_forward_length(settings.d_ff)
        writer.add_key_length(settings.d_kv)
        writer.add_head_count_kv(settings.num_heads)
        writer.add_layer_norm_eps(settings.layer_norm_epsilon)
        writer.add_relative_attn_buckets_count(settings.relative_attention_num_buckets)
        writer.add_decoder_start_token_id(0)
        return
    head = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    writer.add_context_length(settings.max_position_embeddings)
    writer.add_feed_forward_length(settings.intermediate_size)
    writer.add_head_count_kv(settings.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(settings.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    if getattr(settings, "sliding_window", None):
        writer.add_sliding_window(settings.sliding_window)
    theta = settings.rope_parameters.get("full_attention", settings.rope_parameters)["rope_theta"]
    writer.add_rope_freq_base(theta)


def _add_words(writer: GGUFWriter, words: Sequence[str], tokenizer: str, settings: Any) -> None:
    ids = {name: getattr(settings, f"{name}_token_id", None) for name in ("pad", "bos", "eos")}
    special = {id for id in ids.values() if id is not None}
    writer.add_tokenizer_model(tokenizer)
    writer.add_token_list(list(words))
    writer.add_token_scores([0.0 if id in special else -1.0 - id / 100 for id in range(len(words))])
    writer.add_token_types(
        [TokenType.CONTROL if id in special else TokenType.NORMAL for id in range(len(words))]
    )
    for name, id in ids.items():
        if id is not None:
            writer.add_uint32(f"tokenizer.ggml.{FIELDS[name]}", id)
    if "<unk>" in words:
        writer.add_unk_token_id(words.index("<unk>"))


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)
