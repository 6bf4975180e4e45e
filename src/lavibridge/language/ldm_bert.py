"""LDM's text encoder: a transformer over word pieces, trained by the denoiser's loss alone.

Rombach et al. 2022, arXiv 2112.10752. It reads word pieces like BERT; the published pipeline pads
prompts to 77 tokens and masks nothing (`see_padding: true`). LoRA on the attention's four linears.
"""

from typing import Any

from lavibridge.language.hf import TransformersModel


class LdmBert(TransformersModel):
    """From a folder of LDM's pipeline, its `bert` is loaded."""

    models = {"ldmbert": "LDMBertModel"}  # noqa: RUF012 - a constant of the class
    lora_targets = ("q_proj", "k_proj", "v_proj", "out_proj")
    learned_positions = True
    is_framed = True
    toy_template = "<s> $A </s>"
    toy = {  # noqa: RUF012 - a constant of the class
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_ffn_dim": 64,
        "encoder_attention_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }

    @classmethod
    def _class(cls, name: str) -> Any:
        return ldm_bert()


def ldm_bert() -> Any:
    """Return LDMBertModel, which Diffusers keeps in the module of its pipeline."""
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel

    return LDMBertModel
