"""`mini-pixart`: a PixArt-alpha of 64 x 64 pictures, published layout (Chen et al., arXiv 2310.00426).

A transformer over 2 x 2 patches of the latents reads the frozen features of `mini-t5-base` through its
caption projection, with padding masked. It also learns its variance, as an interpolation between the two
bounds of Nichol and Dhariwal 2021 (arXiv 2102.09672, section 3.1), from their variational term, which leaves
the mean alone:

    log s^2 = v log beta_t + (1 - v) log beta~_t,    v = (output + 1) / 2

Two probes train with it. Its inner tokens predict the content of their patch (zoo/patch_probe.py), which
doubled the benefit of a caption after the same number of steps. The tokens of its captions predict the
attributes of their thing (zoo/attribute_binding_probe.py): with this probe it began to learn which colour
belongs to which shape. It had not learned that in 31,000 steps with mini-t5-large, whose last layer hardly
contains it, nor in 500 with mini-t5-base without the probe (LOG.md, 2026-11-22, docs/decisions/0018).
"""

import math
from functools import cache
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import T5EncoderModel, T5Tokenizer

from lavibridge.core.paths import models_folder
from lavibridge.diffusion.schedule import diffusion_schedule
from lavibridge.zoo.attribute_binding_probe import IGNORE_INDEX, AttributeBindingProbe, binding_labels
from lavibridge.zoo.latent_diffusion import (
    CurriculumStage,
    EncodedCaptions,
    LatentDiffusionPretraining,
    MiniatureLatents,
    NoisyBatch,
    capture_outputs,
)
from lavibridge.zoo.patch_probe import PatchProbe, patch_labels

_SCHEDULE = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
}
"""The noise schedule of PixArt-alpha."""
_PATCH_PROBE_WEIGHT, _PATCH_PROBE_BLOCK = 0.3, 4
"""Weight of the patch probe relative to the noise's error, and the block whose output it reads."""
_WORD_PREFIX = "\u2581"
"""SentencePiece's mark before a piece that begins a word."""
_BINDING_PROBE_WEIGHT = 0.5
"""Weight of the attribute-binding probe."""


def _build(width: int) -> PixArtTransformer2DModel:
    """Return the transformer with fresh weights: 8 x 8 patches of 16 x 16 latents."""
    return PixArtTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_layers=6,
        num_attention_heads=4,
        attention_head_dim=36,
        cross_attention_dim=144,
        caption_channels=width,
        interpolation_scale=1,
    )


class PixArtPretraining(LatentDiffusionPretraining):
    """Trains the transformer with a frozen text encoder."""

    name = "mini-pixart"
    steps = 80_000
    curriculum = (
        CurriculumStage(steps=range(4_000), emphasis={"one": 3.0}, place_emphasis=20.0, late_every=6),
        CurriculumStage(
            steps=range(41_000),
            emphasis={"two": 4.0, "spatial": 3.0, "color": 3.0, "texture": 3.0, "shape": 3.0},
            place_emphasis=2.0,
            late_every=6,
        ),
        CurriculumStage(emphasis={}, hard=True, late_every=6),
    )
    batch = 32
    lr = 1e-3
    muon_lr = 1e-2  # took half of the steps that AdamW alone took (LOG.md, 2026-11-21)
    bfloat16 = True
    draw_options = {  # noqa: RUF012 - a constant
        "height": 64,
        "width": 64,
        "clean_caption": False,
        "use_resolution_binning": False,
        "guidance_scale": 2.0,  # at 7 shapes fray (LOG.md, 2026-11-22)
    }

    def __init__(self, autoencoder: Path | None = None, t5: Path | None = None, pool: int = 50_000) -> None:
        super().__init__(autoencoder, pool)
        folder = t5 or models_folder() / "mini-t5-base"
        self.text = T5EncoderModel.from_pretrained(folder).float().eval()
        self.tokenizer = T5Tokenizer.from_pretrained(folder)
        self.transformer = _build(self.text.config.d_model)
        config = self.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        self.networks = nn.ModuleDict(
            {
                "transformer": self.transformer,
                "questions": PatchProbe(width),
                "word_questions": AttributeBindingProbe(width),
            }
        )
        self.patch_labels = patch_labels(self.pairs)
        self.binding_labels = cache(self._label_words)
        self._inner = capture_outputs(
            {
                "patches": self.transformer.transformer_blocks[_PATCH_PROBE_BLOCK - 1],
                "words": self.transformer.caption_projection,
            }
        )
        self.scheduler = DPMSolverMultistepScheduler(**_SCHEDULE)
        self.alpha_bar = self.scheduler.alphas_cumprod
        self.schedule = diffusion_schedule(self.alpha_bar)
        self.log_variances = pixart_log_variances(self.scheduler.betas, self.alpha_bar)

    def times(self, even: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Sample the middle half again as often, with density 6 u (1 - u): these times decide the edges."""
        return 0.5 - torch.sin(torch.asin(1 - 2 * even) / 3)

    def matrices(self) -> list[nn.Parameter]:
        """Return the weight matrices of the transformer's blocks."""
        blocks = self.transformer.transformer_blocks
        linear = [module for module in blocks.modules() if isinstance(module, nn.Linear)]
        return [weight for module in linear for weight in module.parameters() if weight.ndim == 2]

    def read(self, captions: list[str]) -> EncodedCaptions:
        """Return the frozen encoder's last layer, with padding masked."""
        ids = self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return EncodedCaptions(
                tokens=self.text(**ids).last_hidden_state,
                mask=ids["attention_mask"],
                binding_labels=pad_sequence(
                    [self.binding_labels(one) for one in captions], True, IGNORE_INDEX
                ),
            )

    def _label_words(self, caption: str) -> Int[Tensor, "token kind"]:
        pieces = self.tokenizer.convert_ids_to_tokens(self.tokenizer(caption, truncation=True)["input_ids"])
        return binding_labels([piece.removeprefix(_WORD_PREFIX) for piece in pieces])

    def errors(self, noised: NoisyBatch, text: EncodedCaptions) -> Float[Tensor, " batch"]:
        """Return the noise's error (first half of the channels), the variance's bound, and the probes'
        losses."""
        output = self.transformer(
            noised.noisy,
            encoder_hidden_states=text.tokens,
            timestep=noised.t,
            encoder_attention_mask=text.mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        predicted, between = output.chunk(2, dim=1)
        patch_loss = self.networks["questions"](self._inner["patches"], self.patch_labels[noised.rows])
        binding_loss = self.networks["word_questions"](self._inner["words"], text.binding_labels)
        bound = self._bound(noised, predicted.detach(), between)
        return (
            self.weighted_error(noised, predicted)
            + bound
            + _PATCH_PROBE_WEIGHT * patch_loss
            + _BINDING_PROBE_WEIGHT * binding_loss
        )

    def _bound(
        self, noised: NoisyBatch, predicted: MiniatureLatents, between: MiniatureLatents
    ) -> Float[Tensor, " batch"]:
        """Return the KL divergence in bits per value between the reverse step of the network and that from
        x_0.

        At t = 0 the published code uses the likelihood of x_0 instead, for which latents have no natural
        bins. Here the divergence applies there too, with the variance of t = 1, to which the published code
        clips.
        """
        at = (slice(None), None, None, None)
        alpha_bar, beta = self.alpha_bar[noised.t][at], self.scheduler.betas[noised.t][at]
        upper, lower = (bound[noised.t][at] for bound in self.log_variances)
        log_variance = lower + (between + 1) / 2 * (upper - lower)
        # Both means are linear in the noise, so their difference is the noise's error times this factor.
        shift = beta / ((1 - beta).sqrt() * (1 - alpha_bar).sqrt()) * (predicted - noised.noise)
        ratio = lower - log_variance
        divergence = 0.5 * (ratio.exp() - 1 - ratio + shift.square() * (-log_variance).exp())
        return divergence.mean(dim=(1, 2, 3)) / math.log(2)

    def pipeline(self) -> PixArtAlphaPipeline:
        """Return the pipeline with its sampler, DPM-Solver++."""
        return PixArtAlphaPipeline(
            vae=self.vae,
            text_encoder=self.text,
            tokenizer=self.tokenizer,
            transformer=self.transformer,
            scheduler=self.scheduler,
        )


def pixart_log_variances(
    betas: Float[Tensor, " time"], alpha_bar: Float[Tensor, " time"]
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """Return the upper and the lower bound of the reverse step's log variance, the lower clipped at t = 0."""
    before = torch.cat([torch.ones(1), alpha_bar[:-1]])
    posterior = betas * (1 - before) / (1 - alpha_bar)
    posterior = torch.cat([posterior[1:2], posterior[1:]])
    return betas.log(), posterior.log()
