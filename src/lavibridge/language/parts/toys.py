"""Tiny sizes for `source: random`, under the names that most configurations use."""

from collections.abc import Mapping

TOY: Mapping[str, int] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
TOY_DECODER: Mapping[str, int] = {**TOY, "num_key_value_heads": 1}
"""The same, with keys and values that the heads share."""
