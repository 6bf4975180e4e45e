"""T5Gemma 2 encoders: Gemma 3 adapted to bidirectional attention; the text part of the encoder alone.

Zhang et al. 2025, arXiv 2512.14856. The weights of the decoder and of the image tower are never read. LoRA on
the four attention linears.
"""

from typing import Any

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.architecture import Architecture, configured_architecture, read_whole_settings
from lavibridge.language.parts.byte_tokens import TOY_IDS
from lavibridge.language.parts.loading import load_language_config, model_class
from lavibridge.language.parts.toys import TOY_DECODER


class T5Gemma2(TransformersModel):
    """T5Gemma2TextEncoder; every layer but each sixth attends within a window."""

    models = {  # noqa: RUF012 - a constant of the class
        "t5gemma2": "T5Gemma2TextEncoder",
        "t5gemma2_text": "T5Gemma2TextEncoder",
    }
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    toy_template = "<s> $A"
    toy = {**TOY_DECODER, "head_dim": 16, "sliding_window": 8}  # noqa: RUF012 - a constant of the class

    @classmethod
    def _architecture(cls, source: str, revision: str | None) -> Architecture:
        description, _ = load_language_config(source, revision)
        if description.get("model_type") == "t5gemma2_text":
            return configured_architecture(cls._class("T5Gemma2TextEncoder"), description, {})
        whole = read_whole_settings(source, description)
        return Architecture(
            model=cls._class("T5Gemma2TextEncoder"),
            settings=whole.encoder.text_config,
            options={"eoi_token_index": whole.encoder.eoi_token_index},
            key_mapping={r"^(?:model\.)?encoder\.(?:text_model\.)?": ""},
        )

    def _fresh(self) -> Any:
        part = {**self.toy, **TOY_IDS}
        whole = model_class("t5gemma2.configuration_t5gemma2.T5Gemma2Config")
        settings = whole(encoder={"text_config": part}, decoder=part).encoder.text_config
        return self._class("T5Gemma2TextEncoder")(settings)

    @classmethod
    def _class(cls, name: str) -> Any:
        return model_class(f"t5gemma2.modeling_t5gemma2.{name}")  # not exported
