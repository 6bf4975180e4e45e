"""Tiny random models of the real classes, saved as ordinary model folders when first asked for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "yes", "no", "a", "red", "cat", "dog", "bench", "bowl", ".", "?"]
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
CLASSES = {0: "person", 1: "cat", 2: "dog", 3: "mouse"}
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} answer:{% endif %}"
)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a toy by its name: blip, clip, owl, yolos, mask2former, grounding_dino, llava or qwen."""
    root = tmp_path_factory.mktemp("toys")

    def find(name: str) -> str:
        if not (root / name).exists():
            globals()[f"save_{name}"](root / name)
        return str(root / name)

    return find


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Two pictures of noise, one of them wide."""
    rng = np.random.default_rng(0)
    shapes = ((60, 90, 3), (64, 64, 3))
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def word_tokenizer() -> hf.PreTrainedTokenizerFast:
    """Words in the manner of BERT: [CLS] a red cat [SEP]."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def byte_tokenizer() -> hf.PreTrainedTokenizerFast:
    """Bytes, the words that answers are made of, and a token that stands for a picture."""
    known = ["<pad>", "<s>", "</s>"]
    vocabulary = {token: i for i, token in enumerate([*known, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT
    )
    made.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    made.add_tokens(["Yes", "yes", "No", "no"])
    made.image_token = "<|image|>"
    return made


def save_blip(folder: Path) -> None:
    """Answers questions; its [DEC] and [ENC] stand behind the words."""
    words = len(WORDS)
    vision = {**TEXT, "image_size": 32, "patch_size": 16}
    text = {**TEXT, "vocab_size": words + 2, "bos_token_id": words, "encoder_hidden_size": 32}
    config = hf.BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    _save(hf.BlipForQuestionAnswering(config), folder)
    word_tokenizer().save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """Compares pictures with texts."""
    vision = {**TEXT, "image_size": 32, "patch_size": 16}
    text = {**TEXT, "vocab_size": len(WORDS), "max_position_embeddings": 77, "eos_token_id": 3}
    _save(hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)), folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    tokenizer = word_tokenizer()
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)


def save_owl(folder: Path) -> None:
    """Finds what it is asked for in words."""
    vision = {**TEXT, "image_size": 64, "patch_size": 16}
    text = {**TEXT, "vocab_size": len(WORDS), "max_position_embeddings": 16}
    config = hf.Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    _save(hf.Owlv2ForObjectDetection(config), folder)
    Owlv2ImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)


def save_yolos(folder: Path) -> None:
    """Finds four classes of things."""
    config = hf.YolosConfig(
        **TEXT,
        image_size=[64, 64],
        patch_size=16,
        num_detection_tokens=20,
        use_mid_position_embeddings=False,
        id2label=CLASSES,
        label2id={name: number for number, name in CLASSES.items()},
    )
    _save(hf.YolosForObjectDetection(config), folder)
    YolosImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)


def save_mask2former(folder: Path) -> None:
    """Tells the pixels of four classes of things."""
    swin = hf.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = hf.Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        num_attention_heads=2,
        num_queries=12,
        id2label=CLASSES,
        label2id={name: number for number, name in CLASSES.items()},
    )
    _save(hf.Mask2FormerForUniversalSegmentation(config), folder)
    Mask2FormerImageProcessorPil(size={"height": 64, "width": 64}, ignore_index=255).save_pretrained(folder)


def save_grounding_dino(folder: Path) -> None:
    """Finds the words of a sentence."""
    swin = hf.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = hf.GroundingDinoConfig(
        backbone_config=swin,
        text_config=hf.BertConfig(**TEXT, vocab_size=len(WORDS)),
        d_model=32,
        num_queries=20,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_text_len=32,
    )
    _save(hf.GroundingDinoForObjectDetection(config), folder)
    GroundingDinoImageProcessorPil(size={"height": 128, "width": 128}).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)


def save_llava(folder: Path) -> None:
    """Answers in words, with a processor of its own."""
    tokenizer = byte_tokenizer()
    vision = {**TEXT, "image_size": 32, "patch_size": 8}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, projection_dim=16).to_dict(),
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(tokenizer), num_key_value_heads=2).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    _save(hf.LlavaForConditionalGeneration(config), folder)
    hf.LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<|image|>",
        chat_template=CHAT,
    ).save_pretrained(folder)


def save_qwen(folder: Path) -> None:
    """Answers in words, with a grid of patches and no processor that is to be had without torchvision."""
    tokenizer = byte_tokenizer()
    text = {**TEXT, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 512}
    config = hf.Qwen2VLConfig(
        text_config={**text, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 14},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    _save(hf.Qwen2VLForConditionalGeneration(config), folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=84 * 84).save_pretrained(folder)


def _save(model: torch.nn.Module, folder: Path) -> None:
    """Save a model with weights that are large enough to tell inputs apart, always the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
