"""Folders of published models with random weights, in the hub's layout and sizes, without a download.

T5-Large (Raffel et al. 2019, arXiv 1910.10683), Stable Diffusion 1.4 (Rombach et al. 2022, arXiv
2112.10752) and SDXL (Podell et al. 2023, arXiv 2307.01952). Tokenizers have one token for each byte, and
words that nobody writes up to the size of the model's table.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from published_configs import AUTOENCODER, CLIP_G, CLIP_L, CLIP_ROWS, SD14, SDXL, T5_LARGE, T5_ROWS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SMALL: Mapping[str, Mapping[str, Any]] = {
    "t5": {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 6, "num_heads": 8},
    "clip": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
    "sd": {
        "sample_size": 32,
        "cross_attention_dim": 256,
        "block_out_channels": (128, 256, 512, 512),
        "attention_head_dim": 8,
    },
    "autoencoder": {**AUTOENCODER, "block_out_channels": (32, 64, 128, 128)},
}
"""Sizes at which the script is tried."""


def t5_folder(root: Path, is_small: bool = False) -> Path:
    """T5-Large."""
    folder = root / "t5-large"
    sizes = SMALL["t5"] if is_small else T5_LARGE
    sizes = {**sizes, "vocab_size": T5_ROWS, "pad_token_id": 0, "eos_token_id": T5_ROWS - 1}
    config = transformers.T5Config(
        **sizes, feed_forward_proj="relu", is_encoder_decoder=False, use_cache=False
    )
    _save(transformers.T5EncoderModel, config, folder)
    tokenizer("$A </s>", T5_ROWS).save_pretrained(folder)
    return folder


def sd_folder(root: Path, is_small: bool = False) -> Path:
    """Stable Diffusion 1.4, a complete pipeline."""
    folder = root / "sd14"
    _denoiser(folder, *((SMALL["sd"], SMALL["autoencoder"]) if is_small else (SD14, AUTOENCODER)))
    _encoder(folder, "", SMALL["clip"] if is_small else CLIP_L, transformers.CLIPTextModel)
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    _pipeline(folder, "StableDiffusionPipeline", scheduler, {"": "CLIPTextModel"})
    return folder


def sdxl_folder(root: Path) -> Path:
    """SDXL, a complete pipeline."""
    folder = root / "sdxl"
    _denoiser(folder, SDXL, AUTOENCODER)
    _encoder(folder, "", CLIP_L, transformers.CLIPTextModel)
    _encoder(folder, "_2", CLIP_G, transformers.CLIPTextModelWithProjection)
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


def _denoiser(folder: Path, sizes: Mapping[str, Any], other: Mapping[str, Any]) -> None:
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
