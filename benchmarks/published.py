"""Builds pairs of models of any size, the published ones among them, with random weights."""

from collections.abc import Mapping
from typing import Any

from published_configs import AUTOENCODER, LLAMA_7B, PIXART, SD14, T5_LARGE

from lavibridge import Bridge
from lavibridge.core import registry
from lavibridge.lora import LoraSettings
from lavibridge.recipes.recipe import Recipe, load_recipe
from lavibridge.training.loop import training_mode

Sizes = Mapping[str, Mapping[str, Any]]
AUTOENCODER_512 = {**AUTOENCODER, "sample_size": 512}
PUBLISHED: Mapping[str, Sizes] = {
    "t5-large_sd14_lavi": {"language": T5_LARGE, "vision": SD14, "autoencoder": AUTOENCODER_512},
    "llama2-7b_sd14_lavi": {"language": LLAMA_7B, "vision": SD14, "autoencoder": AUTOENCODER_512},
    "t5-large_pixart_lavi": {"language": T5_LARGE, "vision": PIXART, "autoencoder": AUTOENCODER_512},
}


def pair(
    language: str, vision: str, sizes: Sizes, options: Mapping[str, Any], dtype: str = "float32"
) -> tuple[Any, Any]:
    """A language and a vision model of these kinds and sizes, with random weights."""
    speaker, painter = registry.load_kind("language", language), registry.load_kind("vision", vision)
    speaker = type(speaker.__name__, (speaker,), {"toy": sizes["language"]})
    toys = {"toy": sizes["vision"], "toy_autoencoder": sizes["autoencoder"]}
    painter = type(painter.__name__, (painter,), toys)
    return (
        speaker(speaker.Config(source="random", dtype=dtype, **options)),
        painter(painter.Config(source="random", dtype=dtype)),
    )


def composed(name: str, is_toy: bool = False, **language: Any) -> tuple[Recipe, Bridge]:
    """A published recipe's bridge at its true shapes or as toys, frozen weights in bfloat16.

    ``language`` are more options of the language model.
    """
    recipe = load_recipe(name, ["language.dtype=bfloat16", "vision.dtype=bfloat16"])
    speaker, painter = recipe.language.model_dump(), recipe.vision.model_dump()
    options = {"max_tokens": 16 if is_toy else speaker["max_tokens"], **language}
    if is_toy:
        random = {"source": "random", "dtype": "bfloat16"}
        language_model: Any = {"kind": speaker["kind"], **random, **options}
        vision_model: Any = {"kind": painter["kind"], **random}
    else:
        sizes = PUBLISHED[name]
        language_model, vision_model = pair(speaker["kind"], painter["kind"], sizes, options, "bfloat16")
    lora = LoraSettings(rank=4 if is_toy else 32, dropout=0.0)
    bridge = Bridge.compose(language_model, vision_model, recipe.connector.model_dump(), lora, lora)
    training_mode(bridge)
    return recipe, bridge
