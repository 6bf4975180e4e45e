"""SigLIP text towers, 1 and 2: bidirectional, trained on 64 tokens with visible padding.

To read one exactly as it was trained: `max_tokens: 64, see_padding: true`. Its pooled vector is that of the
last position, which is padding in most prompts, so it is not returned.

Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025 (SigLIP 2), arXiv 2502.14786.
LoRA on the attention's four linears.
"""

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY


class SiglipText(TransformersModel):
    """From a whole SigLIP, the text tower is loaded."""

    models = {  # noqa: RUF012 - a constant of the class
        "siglip_text_model": "SiglipTextModel",
        "siglip": "SiglipTextModel",
        "siglip2_text_model": "Siglip2TextModel",
        "siglip2": "Siglip2TextModel",
    }
    lora_targets = ("k_proj", "v_proj", "q_proj", "out_proj")
    learned_positions = True
    takes_queries = False
    toy_template = "$A </s>"
    toy = TOY
