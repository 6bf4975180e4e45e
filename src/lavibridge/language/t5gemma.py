"""T5Gemma encoders: Gemma adapted to see both ways, as the encoder of an encoder-decoder model.

Zhang et al. 2025, arXiv 2504.06225. The decoder's weights are left aside. LoRA on the four attention linears.
"""

from typing import Any

from lavibridge.language.hf import TOY_IDS, TransformersModel


class T5Gemma(TransformersModel):
    """The encoder alone."""

    models = {"t5gemma": "T5GemmaEncoderModel"}  # noqa: RUF012 - a constant of the class
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    load_options = {"is_encoder_decoder": False}  # noqa: RUF012 - a constant of the class
    limits_positions = True
    toy_template = "<s> $A"
    toy = {  # noqa: RUF012 - a constant of the class
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }

    def _fresh(self, model: Any) -> Any:
        part = {**self.toy, **TOY_IDS}
        return model(model.config_class(encoder=part, decoder=part, **self.load_options, **TOY_IDS))

    def _settings(self) -> Any:
        return self.backbone.config.encoder
