"""Toy pipelines of Diffusers' own classes: each family's denoiser under small text encoders."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from torch import Tensor

from lavibridge.core import registry
from lavibridge.core.paths import models_folder
from lavibridge.core.text_encoders import PipelineTextEncoders
from lavibridge.language.parts.byte_tokens import byte_tokenizer

WIDTH, POOLED = 48, 24
"""Of the toys' denoisers."""


def clip(width: int, projection: int | None = None) -> Any:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(models_folder() / "mini-clip")
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    made = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
    return made(config), tokenizer


def t5() -> Any:
    tokenizer = transformers.T5Tokenizer.from_pretrained(models_folder() / "mini-t5-small")
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=16, d_ff=32, num_layers=2, num_heads=2
    )
    return transformers.T5EncoderModel(config), tokenizer


def gemma() -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(models_folder() / "mini-llama")
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return transformers.Gemma2Model(config), tokenizer


def bert() -> Any:
    tokenizer = transformers.BertTokenizer.from_pretrained(models_folder() / "mini-ldm" / "tokenizer")
    config = LDMBertConfig(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        encoder_layers=2,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        head_dim=16,
        max_position_embeddings=77,
    )
    return LDMBertModel(config).eval(), tokenizer


def numbered(*encoders: Any) -> dict[str, Any]:
    """Encoders and tokenizers as a pipeline names them: text_encoder, text_encoder_2, ..."""
    named = {}
    for index, (model, tokenizer) in enumerate(encoders, start=1):
        end = "" if index == 1 else f"_{index}"
        named |= {f"text_encoder{end}": model.eval(), f"tokenizer{end}": tokenizer}
    return named


FAMILIES: Mapping[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "sd": ("sd", "StableDiffusionPipeline", lambda: numbered(clip(WIDTH))),
    "sdxl": ("sdxl", "StableDiffusionXLPipeline", lambda: numbered(clip(16), clip(32, POOLED))),
    "sd3": ("sd3", "StableDiffusion3Pipeline", lambda: numbered(clip(16, 8), clip(16, 16), t5())),
    "flux": ("flux", "FluxPipeline", lambda: numbered(clip(POOLED), t5())),
    "pixart": ("pixart", "PixArtAlphaPipeline", lambda: numbered(t5())),
    "pixart-sigma": ("pixart", "PixArtSigmaPipeline", lambda: numbered(t5())),
    "sana": ("sana", "SanaPipeline", lambda: numbered(gemma())),
    "ldm": ("ldm", "LDMTextToImagePipeline", lambda: dict(zip(("bert", "tokenizer"), bert(), strict=True))),
}
"""Name -> the family, its pipeline in Diffusers, and the pipeline's text encoders."""
DECLARED: Mapping[str, tuple[str, str]] = {
    kind if len(titles) == 1 else f"{kind} {title}": (kind, title)
    for kind in registry.kinds("vision")
    for titles in (registry.load_kind("vision", kind).toy_pipelines,)
    for title in titles
}
"""Name -> the family that declares a toy, and the toy's pipeline in Diffusers."""
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{{ message.content[0].text }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""A chat template like Qwen3's, for content of both kinds."""


class NoChecker(torch.nn.Module):
    """Stands for the checker that Cosmos' pipeline imports from a package of its own; latents pass it by."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt: str) -> bool:
        return True


def without_resizing(transformer: Any) -> Any:
    """Let Cosmos' transformer append the mask of padded pixels, which it would resize with torchvision."""

    def append(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        latents = torch.nn.functional.pad(options["hidden_states"], (0, 0) * 3 + (0, 1))
        return args, {**options, "hidden_states": latents}

    transformer.register_forward_pre_hook(append, with_kwargs=True)
    return transformer


OTHERS: Mapping[str, Any] = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


def declared(family: Any, title: str) -> dict[str, Any]:
    """The parts of a toy that a family declares: text encoders over bytes, or another denoiser."""
    parts: dict[str, Any] = {}
    for folder, settings in family.toy_pipelines[title].items():
        options = dict(settings)
        if folder == family.denoiser_folder:
            parts[folder] = getattr(diffusers, family.denoiser_class)(**{**family.toy, **options})
            continue
        name = options.pop("_class_name")
        if name.startswith("CLIP"):
            model, tokenizer = clip(options["hidden_size"], options.get("projection_dim"))
            parts |= {folder: model.eval(), folder.replace("text_encoder", "tokenizer"): tokenizer}
            continue
        made: Any = getattr(transformers, name)
        tokenizer = byte_tokenizer("<s> $A" if "d_model" not in options else "$A </s>")
        tokenizer.chat_template, tokenizer.model_max_length = CHAT, 256
        tokenizer.add_tokens(_words(family.text))
        text = {**options.get("text_config", options), "vocab_size": len(tokenizer)}
        options |= {"text_config": text} if "text_config" in options else text
        parts[folder] = made(made.config_class(**options)).eval()
        parts[folder.replace("text_encoder", "tokenizer")] = tokenizer
    return parts


def _words(side: PipelineTextEncoders) -> list[str]:
    """The words around prompts, so that a toy's tokenizer of bytes makes a token of each."""
    chats = [each.chat.system or "" for each in side.encoders if each.chat is not None]
    texts = [CHAT, side.instruction, *(each.template for each in side.encoders), *chats]
    return sorted({word for text in texts for word in re.findall(r"<[^ >]+>|[A-Za-z]{3,}", text)})


@torch.no_grad()
def read_by_pipeline(pipe: Any, prompt: str, negative: str, width: int) -> list[Tensor]:
    """What a pipeline makes of a prompt and of a negative prompt: the tokens that its denoiser reads."""
    known = inspect.signature(pipe.encode_prompt).parameters
    defaults = inspect.signature(pipe.__call__).parameters
    options: dict[str, Any] = {"device": "cpu"}
    if "max_sequence_length" in known:
        options["max_sequence_length"] = defaults["max_sequence_length"].default
    if "negative_prompt" in known:
        values = pipe.encode_prompt([prompt], negative_prompt=[negative], **options)
        return _real_tokens(values, width)
    return [_real_tokens(pipe.encode_prompt([each], **options), width)[0] for each in (prompt, negative)]


def _real_tokens(values: Sequence[Any], width: int) -> list[Tensor]:
    """The (token, width) of each prompt, by the masks that go with them."""
    found = [each for value in values for each in (value if isinstance(value, list) else [value])]
    tokens = [each.reshape(-1, width) for each in found if each is not None and each.shape[-1] == width]
    masks = [
        each[0].bool() for each in found if each is not None and each.shape[-1] != width and each.ndim == 2
    ]
    masks = [each for each in masks if len(each) in map(len, tokens)]
    if len(masks) != len(tokens):
        return tokens
    return [each[mask] for each, mask in zip(tokens, masks, strict=True)]


def pipeline(name: str, **changes: Any) -> Any:
    """A toy pipeline of the real class, with the family's toy denoiser."""
    if name in FAMILIES:
        kind, title, encoders = FAMILIES[name]
    else:
        kind, title = DECLARED[name]
        encoders = lambda: declared(family, title)  # noqa: E731
    family: Any = registry.load_kind("vision", kind)
    model = family(family.Config(source="random"))
    made: Any = getattr(diffusers, title)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            family.denoiser_folder: model.backbone,
            family.autoencoder_folder: model.autoencoder,
            "scheduler": model.scheduler,
            **encoders(),
            **changes,
        }
    taken = made.__init__.__code__.co_varnames
    others = {each: value for each, value in OTHERS.items() if each in taken}
    if title.startswith("Cosmos"):
        others["safety_checker"] = NoChecker()
        without_resizing(model.backbone)
    if "requires_safety_checker" in taken:
        others["requires_safety_checker"] = False
    pipe = made(**parts, **others)
    pipe.set_progress_bar_config(disable=True)
    return pipe
