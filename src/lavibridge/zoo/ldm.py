"""`mini-ldm`: a latent diffusion model with its own BERT, published layout (Rombach et al., 2112.10752).

As in LDM's text-to-image model, the encoder starts from random weights, reads word pieces in both
directions and is trained by the U-Net's loss alone. Diffusers' pipeline takes a picture to be 8 times its
latents in size; here it is 4 times, so it draws 64 x 64 when it is asked for 128 x 128.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, LDMTextToImagePipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from jaxtyping import Float
from torch import Tensor, nn

from lavibridge.zoo.latent_diffusion import STEPS, LatentDiffusionPretraining, Noised, Text
from lavibridge.zoo.stable_diffusion import SCHEDULE, build
from lavibridge.zoo.tokenizers import wordpiece_tokenizer
from lavibridge.zoo.told import Questions

TOKENS = 77
"""What Diffusers' pipeline pads every prompt to."""


class LatentDiffusionBertPretraining(LatentDiffusionPretraining):
    """The U-Net and its BERT, both from random weights."""

    name = "mini-ldm"
    steps = 12_000
    batch = 32
    lr = 1.5e-3
    # Every size is told twice as large as it is; DDIM is of first order, so it takes more steps.
    draw_options = {"height": 128, "width": 128, "num_inference_steps": 2 * STEPS}  # noqa: RUF012 - a constant

    def __init__(self, autoencoder: Path | None = None, pool: int = 50_000) -> None:
        super().__init__(autoencoder, pool)
        self.tokenizer = wordpiece_tokenizer()
        config = LDMBertConfig(
            vocab_size=len(self.tokenizer),
            max_position_embeddings=TOKENS,
            d_model=128,
            encoder_layers=4,
            encoder_ffn_dim=512,
            encoder_attention_heads=4,
            head_dim=32,
            dropout=0.0,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.bert = LDMBertModel(config)
        self.unet = build(config.d_model).to(memory_format=torch.channels_last)
        self.questions = Questions(config.d_model)
        self.networks = nn.ModuleDict({"unet": self.unet, "bert": self.bert, "questions": self.questions})
        self.scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False)
        self.alpha_bar = self.scheduler.alphas_cumprod

    def read(self, captions: list[str]) -> Text:
        """The BERT's last layer, pads in view."""
        ids = self.tokenizer(
            captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        return Text(tokens=self.bert(ids["input_ids"])[0])

    def errors(self, noised: Noised, text: Text) -> Float[Tensor, " batch"]:
        """Of the U-Net's output."""
        predicted = self.unet(noised.noisy, noised.t, encoder_hidden_states=text.tokens).sample
        return self.weighted_error(noised, predicted)

    def pipeline(self) -> LDMTextToImagePipeline:
        """With its sampler, DDIM."""
        return LDMTextToImagePipeline(
            vqvae=self.vae, bert=self.bert, tokenizer=self.tokenizer, unet=self.unet, scheduler=self.scheduler
        )
