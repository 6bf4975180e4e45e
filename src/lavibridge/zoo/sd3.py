"""`mini-sd3`: a Stable Diffusion 3 of 64 x 64 pictures, published layout (Esser et al., arXiv 2403.03206).

    x_s = (1 - s) x_0 + s e        loss = |(e - x_0) - v(x_s, s, caption)|^2

A flow transformer in which picture patches and text tokens attend to each other. Its three text encoders
stay frozen and are arranged as published: mini-clip's text tower next to mini-sd's, which learned attribute
binding with a denoiser, each with its second-to-last layer; after them mini-t5-small, padded to their width
with zero columns. The pooled vectors of the first two modulate every layer.

The denoiser takes no mask, so it attends to padding. The pipeline gives it 64 + 256 text positions, a bridge
only the prompt's own tokens. Most steps therefore train on captions of similar length without padding beyond
the longest, a third of them with the T5's tokens, and every `_PADDED_EVERY`th step on all positions of the
pipeline. The T5 reads its padding as text, as published, which leaves little of what it knows about a
caption.

Two probes train with it, as in mini-pixart: inner tokens predict the content of their patch
(zoo/patch_probe.py), and text tokens the attributes of their thing (zoo/attribute_binding_probe.py).
"""

from functools import cache
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from lavibridge.core.paths import models_folder
from lavibridge.diffusion.schedule import flow_schedule
from lavibridge.zoo.attribute_binding_probe import IGNORE_INDEX, AttributeBindingProbe, binding_labels
from lavibridge.zoo.latent_diffusion import (
    CurriculumStage,
    EncodedCaptions,
    LatentDiffusionPretraining,
    NoisyBatch,
    capture_outputs,
)
from lavibridge.zoo.patch_probe import PatchProbe, patch_labels

_TRAINING_TIMES, _SHIFT = 1000, 3.0
"""As published: with this shift, half of the times have more than three quarters of noise."""
T5_TOKENS = 256
"""The pipeline's default."""
T5_DROPOUT = 0.5
"""Fraction of captions with zeros at the T5's positions, as when the pipeline is loaded without it."""
_T5_EVERY, _PADDED_EVERY = 3, 12
_LENGTH_GROUPS = 4
"""A step takes one of this many batches, sorted by the captions' lengths."""
_PATCH_PROBE_WEIGHT, _PATCH_PROBE_BLOCK = 0.3, 4
"""Weight of the patch probe relative to the velocity's error, and the block whose output it reads."""
_BINDING_PROBE_WEIGHT, _BINDING_PROBE_BLOCK = 0.5, 2
"""The same for the attribute-binding probe."""
_WORD_SUFFIX = "</w>"


def _build(context: int, pooled: int) -> SD3Transformer2DModel:
    """Return the transformer with fresh weights: 8 x 8 patches of 16 x 16 latents; blocks start as
    identities."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=7,
        num_attention_heads=4,
        attention_head_dim=24,
        joint_attention_dim=context,
        caption_projection_dim=96,
        pooled_projection_dim=pooled,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    for layer in (*_modulations(transformer), transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


class StableDiffusion3Pretraining(LatentDiffusionPretraining):
    """Trains the transformer with three frozen text encoders."""

    name = "mini-sd3"
    steps = 23_000
    curriculum = (
        CurriculumStage(steps=range(5_000), emphasis={"one": 3.0}, place_emphasis=4.0, late_every=8),
        CurriculumStage(
            steps=range(25_000), emphasis={"two": 3.0, "spatial": 2.0}, place_emphasis=2.0, late_every=8
        ),
        CurriculumStage(emphasis={"one": 3.0, "two": 2.0, "spatial": 2.0}, hard=True, late_every=8),
    )
    batch = 32
    lr = 1e-3
    muon_lr = 1e-2
    bfloat16 = True
    draw_options = {  # noqa: RUF012 - a constant
        "height": 64,
        "width": 64,
        "guidance_scale": 3.0,
        "max_sequence_length": 48,  # a third of the tokens makes the scores cheap
    }

    def __init__(self, autoencoder: Path | None = None, pool: int = 50_000) -> None:
        super().__init__(autoencoder, pool)
        self.vae.register_to_config(shift_factor=0.0)  # the pipeline requires a number
        models = models_folder()
        self.towers = _load_text_towers(models / "mini-clip", models / "mini-sd" / "text_encoder")
        self.tokenizer = CLIPTokenizer.from_pretrained(models / "mini-clip")
        width = sum(each.config.hidden_size for each in self.towers)
        self.t5 = widen_encoder(T5EncoderModel.from_pretrained(models / "mini-t5-small").float(), width)
        self.t5_tokenizer = T5Tokenizer.from_pretrained(models / "mini-t5-small")
        self.transformer = _build(width, sum(each.config.projection_dim for each in self.towers))
        width = self.transformer.inner_dim
        self.networks = nn.ModuleDict(
            {
                "transformer": self.transformer,
                "questions": PatchProbe(width),
                "word_questions": AttributeBindingProbe(width),
            }
        )
        self.patch_labels = patch_labels(self.pairs)
        self.binding_labels = cache(self._label_words)
        blocks = self.transformer.transformer_blocks  # each returns the text's tokens and the patches'
        self._inner = capture_outputs(
            {"words": blocks[_BINDING_PROBE_BLOCK - 1], "patches": blocks[_PATCH_PROBE_BLOCK - 1]}
        )
        self.schedule = flow_schedule(_TRAINING_TIMES, _SHIFT)
        self.lengths = torch.tensor([len(each) for each in self.tokenizer(self.captions[1:])["input_ids"]])
        self.is_padded = self.reads_t5 = False

    def times(self, even: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Sample logit-normally, as published; the schedule's shift applies on top."""
        return torch.special.ndtri(even).sigmoid()

    def matrices(self) -> list[nn.Parameter]:
        """Return the weight matrices of the blocks, without the modulation layers."""
        blocks, modulations = self.transformer.transformer_blocks, set(_modulations(self.transformer))
        linear = [module for module in blocks.modules() if isinstance(module, nn.Linear)]
        return [
            p for module in linear if module not in modulations for p in module.parameters() if p.ndim == 2
        ]

    def loss(self, step: int) -> Tensor:
        """Return the pictures' errors; every `_PADDED_EVERY`th step uses all the padding of the pipeline."""
        self.is_padded = step % _PADDED_EVERY == 0
        self.reads_t5 = step % _T5_EVERY == 0
        return super().loss(step)

    def choose(self, emphasis: Float[Tensor, " pair"]) -> Int[Tensor, " batch"]:
        """Sample rows whose captions have similar lengths."""
        chosen = torch.multinomial(emphasis, _LENGTH_GROUPS * self.batch)
        in_order = chosen[self.lengths[chosen].argsort()]
        return in_order.view(_LENGTH_GROUPS, self.batch)[torch.randint(_LENGTH_GROUPS, ())]

    def read(self, captions: list[str]) -> EncodedCaptions:
        """Return the text that the step shows; in the causal towers, later padding does not affect earlier
        tokens."""
        found = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        ids = found["input_ids"]
        if not self.is_padded:
            ids = ids[:, : int(found["attention_mask"].sum(dim=1).max())]
        with torch.no_grad():
            read = [tower(input_ids=ids, output_hidden_states=True) for tower in self.towers]
            tokens = torch.cat([each.hidden_states[-2] for each in read], dim=-1)
            if self.reads_t5:
                tokens = torch.cat([tokens, self._read_by_t5(captions)], dim=1)
        return EncodedCaptions(
            tokens=tokens,
            pooled=torch.cat([each.text_embeds for each in read], dim=-1),
            binding_labels=pad_sequence([self.binding_labels(one) for one in captions], True, IGNORE_INDEX),
        )

    def _read_by_t5(self, captions: list[str]) -> Float[Tensor, "batch token width"]:
        longest = {"padding": "max_length", "max_length": T5_TOKENS} if self.is_padded else {"padding": True}
        found = self.t5_tokenizer(captions, truncation=True, return_tensors="pt", **longest)
        read = self.t5(input_ids=found["input_ids"]).last_hidden_state
        return read * (torch.rand(len(captions), 1, 1) >= T5_DROPOUT)

    def _label_words(self, caption: str) -> Int[Tensor, "token kind"]:
        pieces = self.tokenizer.convert_ids_to_tokens(self.tokenizer(caption, truncation=True)["input_ids"])
        return binding_labels([piece.removesuffix(_WORD_SUFFIX) for piece in pieces])

    def errors(self, noised: NoisyBatch, text: EncodedCaptions) -> Float[Tensor, " batch"]:
        """Return the velocity's error and the probes' losses."""
        predicted = self.transformer(
            noised.noisy,
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
            timestep=self.schedule.times[noised.t],
        ).sample
        error = (predicted - (noised.noise - noised.latents)).square().mean(dim=(1, 2, 3))
        patch_loss = self.networks["questions"](self._inner["patches"][1], self.patch_labels[noised.rows])
        assert text.binding_labels is not None
        binding_loss = self.networks["word_questions"](
            self._inner["words"][0][:, : text.binding_labels.shape[1]], text.binding_labels
        )
        return error + _PATCH_PROBE_WEIGHT * patch_loss + _BINDING_PROBE_WEIGHT * binding_loss

    def pipeline(self) -> StableDiffusion3Pipeline:
        """Return the pipeline with the published sampler."""
        first, second = self.towers
        return StableDiffusion3Pipeline(
            transformer=self.transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=_TRAINING_TIMES, shift=_SHIFT),
            vae=self.vae,
            text_encoder=first,
            tokenizer=self.tokenizer,
            text_encoder_2=second,
            tokenizer_2=self.tokenizer,
            text_encoder_3=self.t5,
            tokenizer_3=self.t5_tokenizer,
        )


def _load_text_towers(clip: Path, finetuned: Path) -> list[CLIPTextModelWithProjection]:
    """Load the text tower of a CLIP and one finetuned from it, each with the CLIP's projection."""
    whole = CLIPModel.from_pretrained(clip)
    found = []
    for tower in (whole.text_model, CLIPTextModel.from_pretrained(finetuned)):
        read = CLIPTextModelWithProjection(whole.config.text_config).float().eval()
        read.text_model.load_state_dict(tower.state_dict())
        read.text_projection.load_state_dict(whole.text_projection.state_dict())
        found.append(read)
    return found


def widen_encoder(encoder: T5EncoderModel, width: int) -> T5EncoderModel:
    """Return an encoder of `width` that gives the same features, followed by zeros.

    Zeros shrink the mean square that a norm divides by; the norm's gain and epsilon compensate for that.
    """
    config = T5Config(**{**encoder.config.to_dict(), "d_model": width})
    share = encoder.config.d_model / width
    config.layer_norm_epsilon = share * encoder.config.layer_norm_epsilon
    wide = T5EncoderModel(config).float().eval()
    narrow = encoder.state_dict()
    state = {name: torch.zeros_like(weight) for name, weight in wide.state_dict().items()}
    for name, weight in state.items():
        part = narrow[name] * share**0.5 if "layer_norm" in name else narrow[name]
        weight[tuple(slice(size) for size in part.shape)] = part
    wide.load_state_dict(state)
    return wide


def _modulations(transformer: SD3Transformer2DModel) -> list[nn.Linear]:
    """Return the layers that compute shifts, scales and gates from the time and the pooled text."""
    blocks = transformer.transformer_blocks
    norms = [norm for block in blocks for norm in (block.norm1, block.norm1_context)]
    return [norm.linear for norm in (*norms, transformer.norm_out)]
