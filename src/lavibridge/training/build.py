"""From a recipe to the bridge that training starts from."""

import torch

from lavibridge.bridge import Bridge
from lavibridge.recipes.recipe import Recipe


def build_bridge(recipe: Recipe) -> Bridge:
    """The untrained bridge: the same weights every time, from `training.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        return Bridge.compose(
            language=recipe.language.model_dump(),
            vision=recipe.vision.model_dump(),
            connector=recipe.connector.model_dump(),
            language_lora=recipe.lora.language,
            vision_lora=recipe.lora.vision,
        )
