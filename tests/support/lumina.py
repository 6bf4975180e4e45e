"""A vision family from outside, whose denoiser lays out its sequence by the values of its mask."""

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.toys import TOY_FLOW


class Lumina2(DiffusersModel):
    """Lumina2Transformer2DModel: text and picture are one sequence, whose length the mask decides."""

    denoiser_folder = "transformer"
    denoiser_class = "Lumina2Transformer2DModel"
    class_names = ("Lumina2Transformer2DModel",)
    joint_attention = True
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    toy_scheduler = TOY_FLOW
    toy = {  # noqa: RUF012 - a constant of the class
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "hidden_size": 32,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "num_kv_heads": 1,
        "multiple_of": 8,
        "axes_dim_rope": (8, 4, 4),
        "axes_lens": (300, 64, 64),
        "cap_feat_dim": 48,
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        return self.backbone(
            noisy,
            timestep=1 - t / 1000,
            encoder_hidden_states=conditioning.tokens,
            encoder_attention_mask=conditioning.mask,
            return_dict=False,
        )[0]

    def _context_width(self) -> int:
        return int(self.backbone.config.cap_feat_dim)
