"""T5Gemma encoders: Gemma adapted to bidirectional attention, the encoder of an encoder-decoder model.

Zhang et al. 2025, arXiv 2504.06225. The decoder's weights are ignored. LoRA on the four attention linears.
"""

from typing import Any

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.byte_tokens import TOY_IDS
from lavibridge.language.parts.toys import TOY_DECODER


class T5Gemma(TransformersModel):
    """The encoder alone."""

    models = {"t5gemma": "T5GemmaEncoderModel"}  # noqa: RUF012 - a constant of the class
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    load_options = {"is_encoder_decoder": False}  # noqa: RUF012 - a constant of the class
    toy_template = "<s> $A"
    toy = {**TOY_DECODER, "head_dim": 16}  # noqa: RUF012 - a constant of the class

    def _fresh(self) -> Any:
        part, model = {**self.toy, **TOY_IDS}, self._class("T5GemmaEncoderModel")
        return model(model.config_class(encoder=part, decoder=part, **self.load_options, **TOY_IDS))

    @classmethod
    def _sizes(cls, config: Any) -> Any:
        return config.encoder
