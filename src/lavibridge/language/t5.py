"""T5 encoders, bidirectional with relative positions: the most used language models of LaVi-Bridge.

Flan-T5, mT5 and umT5 load too. Raffel et al. 2020, arXiv 1910.10683; Xue et al. 2020 (mT5), arXiv
2010.11934; Chung et al. 2023 (umT5), arXiv 2304.09151. LoRA on SelfAttention's q, k, v, o.
"""

from lavibridge.core.errors import ModelError
from lavibridge.language.hf import TransformersModel


class T5(TransformersModel):
    """The encoder alone; the decoder's weights in a full checkpoint are ignored."""

    models = {  # noqa: RUF012 - a constant of the class
        "t5": "T5EncoderModel",
        "mt5": "MT5EncoderModel",
        "umt5": "UMT5EncoderModel",
    }
    lora_targets = ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o")
    is_framed = True
    toy_template = "$A </s>"
    toy = {  # noqa: RUF012 - a constant of the class
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }

    def _check_tokens(self) -> None:
        super()._check_tokens()
        trained = self.backbone.config.eos_token_id
        if trained is not None and self.tokens.end != [trained]:
            raise ModelError(
                f"the tokenizer of '{self.config.source}' ends prompts with id {self.tokens.end[0]}, the "
                f"model's config.json says {trained} (eos_token_id): take the model's own tokenizer"
            )
