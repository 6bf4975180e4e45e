"""Folders of published models with random weights, in the hub's layout and sizes, without a download.

T5-Large (Raffel et al. 2019, arXiv 1910.10683), Stable Diffusion 1.4 (Rombach et al. 2022, arXiv
2112.10752) and SDXL (Podell et al. 2023, arXiv 2307.01952). Tokenizers have one token for each byte, and
words that nobody writes up to the size of the model's table.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from published_configs import AUTOENCODER, CLIP_G, CLIP_L, CLIP_ROWS, SD14, SDXL, T5_LARGE, T5_ROWS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
TOYS: Mapping[str, Mapping[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "clip": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": 32,
    },
    "sd": {
        "sample_size": 8,
        "cross_attention_dim": 32,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
    },
    "sdxl": {
        **SDXL,
        "sample_size": 8,
        "block_out_channels": (32, 32, 64),
        "attention_head_dim": (2, 2, 4),
        "transformer_layers_per_block": (1, 1, 1),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 64,
        "projection_class_embeddings_input_dim": 32 + 6 * 256,
    },
    "autoencoder": {**AUTOENCODER, "block_out_channels": (8, 16, 16, 16), "norm_num_groups": 8},
}
"""Sizes at which tests run the scripts."""
Widths = Literal["published", "toys"]
"""Widths of a folder's networks."""


def t5_folder(root: Path, widths: Widths = "published") -> Path:
    """T5-Large."""
    folder = root / "t5-large"
    sizes = TOYS["t5"] if widths == "toys" else T5_LARGE
    sizes = {**sizes, "vocab_size": T5_ROWS, "pad_token_id": 0, "eos_token_id": T5_ROWS - 1}
    config = transformers.T5Config(
        **sizes, feed_forward_proj="relu", is_encoder_decoder=False, use_cache=False
    )
    _save(transformers.T5EncoderModel, config, folder)
    tokenizer("$A </s>", T5_ROWS).save_pretrained(folder)
    return folder


def sd_folder(root: Path, widths: Widths = "published") -> Path:
    """Stable Diffusion 1.4, a complete pipeline."""
    folder = root / "sd14"
    _denoiser(folder, SD14, TOYS["sd"], widths)
    _encoder(folder, "", TOYS["clip"] if widths == "toys" else CLIP_L, transformers.CLIPTextModel)
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    _pipeline(folder, "StableDiffusionPipeline", scheduler, {"": "CLIPTextModel"})
    return folder


def sdxl_folder(root: Path, widths: Widths = "published") -> Path:
    """SDXL, a complete pipeline."""
    folder = root / "sdxl"
    _denoiser(folder, SDXL, TOYS["sdxl"], widths)
    _encoder(folder, "", TOYS["clip"] if widths == "toys" else CLIP_L, transformers.CLIPTextModel)
    second = TOYS["clip"] if widths == "toys" else CLIP_G
    _encoder(folder, "_2", second, transformers.CLIPTextModelWithProjection)
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    encoders = {"": "CLIPTextModel", "_2": "CLIPTextModelWithProjection"}
    _pipeline(folder, "StableDiffusionXLPipeline", scheduler, encoders)
    return folder


def tokenizer(template: str, rows: int) -> Any:
    """A token for each byte and for ``rows`` in all; the end has the highest id, as CLIP wants it."""
    words = ["<pad>", "<s>", *BYTES]
    words += [f"unwritten{number}" for number in range(rows - len(words) - 1)] + ["</s>"]
    ids = {word: index for index, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocab=ids, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [(word, ids[word]) for word in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=77
    )


def _denoiser(folder: Path, published: Mapping[str, Any], toy: Mapping[str, Any], widths: Widths) -> None:
    sizes = toy if widths == "toys" else published
    other = TOYS["autoencoder"] if widths == "toys" else AUTOENCODER
    with torch.device("meta"):
        denoiser = diffusers.UNet2DConditionModel(**sizes)
        autoencoder = diffusers.AutoencoderKL(**other, sample_size=8 * sizes["sample_size"])
    _filled(denoiser).save_pretrained(folder / "unet")
    _filled(autoencoder).save_pretrained(folder / "vae")


def _encoder(folder: Path, end: str, sizes: Mapping[str, Any], made: Any) -> None:
    config = transformers.CLIPTextConfig(
        **sizes, vocab_size=CLIP_ROWS, bos_token_id=1, eos_token_id=CLIP_ROWS - 1, pad_token_id=0
    )
    _save(made, config, folder / f"text_encoder{end}")
    tokenizer("<s> $A </s>", CLIP_ROWS).save_pretrained(folder / f"tokenizer{end}")


def _pipeline(folder: Path, name: str, scheduler: Any, encoders: Mapping[str, str]) -> None:
    scheduler.save_pretrained(folder / "scheduler")
    parts: dict[str, Any] = {
        "_class_name": name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", type(scheduler).__name__],
    }
    for end, encoder in encoders.items():
        parts[f"text_encoder{end}"] = ["transformers", encoder]
        parts[f"tokenizer{end}"] = ["transformers", "PreTrainedTokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(parts), encoding="utf-8")


def _save(made: Any, config: Any, folder: Path) -> None:
    with torch.device("meta"):
        model = made(config)
    _filled(model).save_pretrained(folder)


def _filled(model: nn.Module) -> Any:
    """The meta model on the CPU, with small random weights."""
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.02)
            else:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, buffer in model.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return model
