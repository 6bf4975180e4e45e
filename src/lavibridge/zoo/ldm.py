"""`mini-ldm`: a latent diffusion model with its own BERT, published layout (Rombach et al., 2112.10752).

The encoder starts from random weights and reads word pieces in both directions. To fit the training into an
hour, the U-Net starts as that of `mini-sd`, which also teaches the encoder:

    first    loss = |bert(caption) - mini-sd's text tower(caption)|^2    captions only, token by token
    then     the denoiser's loss, BERT and U-Net together, as LDM's are trained

Diffusers' pipeline assumes pictures 8 times the size of their latents; here the factor is 4, so it draws 64 x
64 when asked for 128 x 128.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, LDMTextToImagePipeline, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from lavibridge.core.paths import models_folder
from lavibridge.diffusion.schedule import diffusion_schedule
from lavibridge.zoo.caption_probe import CaptionProbe
from lavibridge.zoo.latent_diffusion import (
    STEPS,
    CurriculumStage,
    EncodedCaptions,
    LatentDiffusionPretraining,
    NoisyBatch,
)
from lavibridge.zoo.stable_diffusion import STABLE_DIFFUSION_SCHEDULE
from lavibridge.zoo.tokenizers import wordpiece_tokenizer

_TOKENS = 77
"""The length to which Diffusers' pipeline pads every prompt."""


class LatentDiffusionBertPretraining(LatentDiffusionPretraining):
    """Trains the U-Net, initialised from mini-sd, and its BERT, initialised at random."""

    name = "mini-ldm"
    steps = 3_500
    distillation_steps = 1_500
    """Number of first steps that train on captions alone."""
    curriculum = (
        CurriculumStage(emphasis={"two": 1.5, "spatial": 3.0, "counting": 2.0}, place_emphasis=20.0),
    )
    batch = 32
    lr = 7e-4
    # The pipeline expects twice the actual size; DDIM is a first-order sampler, so it takes more steps.
    draw_options = {"height": 128, "width": 128, "num_inference_steps": 2 * STEPS}  # noqa: RUF012 - a constant

    def __init__(
        self, autoencoder: Path | None = None, teacher: Path | None = None, pool: int = 50_000
    ) -> None:
        super().__init__(autoencoder, pool)
        folder = teacher or models_folder() / "mini-sd"
        self.teacher = CLIPTextModel.from_pretrained(folder / "text_encoder").float().eval()
        self.teacher_tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.tokenizer = wordpiece_tokenizer()
        config = LDMBertConfig(
            vocab_size=len(self.tokenizer),
            max_position_embeddings=_TOKENS,
            d_model=self.teacher.config.hidden_size,
            encoder_layers=4,
            encoder_ffn_dim=512,
            encoder_attention_heads=4,
            head_dim=32,
            dropout=0.0,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.bert = LDMBertModel(config)
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet").float()
        self.unet.register_to_config(_name_or_path="")  # exports should not contain a local path
        self.unet.to(memory_format=torch.channels_last)
        self.questions = CaptionProbe(config.d_model)
        self.networks = nn.ModuleDict({"unet": self.unet, "bert": self.bert, "questions": self.questions})
        self.scheduler = DDIMScheduler(**STABLE_DIFFUSION_SCHEDULE, clip_sample=False, set_alpha_to_one=False)
        self.schedule = diffusion_schedule(self.scheduler.alphas_cumprod)

    def loss(self, step: int) -> Tensor:
        """Return the distillation loss first, and later the denoiser's loss of both networks."""
        return self.distillation_loss() if step < self.distillation_steps else super().loss(step)

    def distillation_loss(self) -> Float[Tensor, ""]:
        """Return the squared distance from the teacher's features, position by position, as far as its
        positions reach."""
        chosen = torch.randint(len(self.captions), (2 * self.batch,)).tolist()
        captions = [self.captions[row] for row in chosen]
        ids = self.teacher_tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            target = self.teacher(input_ids=ids["input_ids"]).last_hidden_state
        return functional.mse_loss(self.read(captions).tokens[:, : target.shape[1]], target)

    def read(self, captions: list[str]) -> EncodedCaptions:
        """Return the BERT's last layer, with padding visible."""
        ids = self.tokenizer(
            captions, padding="max_length", max_length=_TOKENS, truncation=True, return_tensors="pt"
        )
        return EncodedCaptions(tokens=self.bert(ids["input_ids"])[0])

    def errors(self, noised: NoisyBatch, text: EncodedCaptions) -> Float[Tensor, " batch"]:
        """Return the error of the U-Net's output."""
        predicted = self.unet(noised.noisy, noised.t, encoder_hidden_states=text.tokens).sample
        return self.weighted_error(noised, predicted)

    def pipeline(self) -> LDMTextToImagePipeline:
        """Return the pipeline with its sampler, DDIM."""
        return LDMTextToImagePipeline(
            vqvae=self.vae, bert=self.bert, tokenizer=self.tokenizer, unet=self.unet, scheduler=self.scheduler
        )
