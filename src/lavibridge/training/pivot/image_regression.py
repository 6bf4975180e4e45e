"""The stage that adds an image encoder: its half learns to fill the slots of each picture's caption.

    caption --first language model and half, frozen--> slots
    picture --image encoder, frozen--> new half (learns) --> slots'              loss = fvu of slots'

It is the stage of a language model with pictures in place of captions. A caption says less than its picture
shows, so the half learns the mean over the captions that a picture could have.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.contracts import ReadingSpec, TextFeatures
from lavibridge.core.device import pick_device, set_threads
from lavibridge.core.errors import DataError
from lavibridge.core.files import write_folder_atomic
from lavibridge.core.seeds import mix_seeds
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.image_encoder.base import ImageEncoder
from lavibridge.pivot.folder import PivotFolder
from lavibridge.pivot.half import Learning, write_half
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.alignment.captions import CAPTION_CHOICE, CAPTION_ORDER, AlignmentCaptions
from lavibridge.training.cache.backend import MemoryBackend
from lavibridge.training.cache.features import features_from_entry, features_to_entry
from lavibridge.training.data.order import ShuffledOrder
from lavibridge.training.pivot.recipes import alignment_of, connector_config, new_place
from lavibridge.training.pivot.regression import (
    CALIBRATED_ON,
    new_half,
    reference_slots,
    regress,
    whiten,
)


class PictureReader:
    """Reads pictures of a data set, by name, once each if they fit into memory."""

    def __init__(
        self,
        encoder: ImageEncoder,
        reading: ReadingSpec,
        dataset: Dataset,
        places: dict[str, int],
        gigabytes: float,
        device: torch.device,
    ) -> None:
        """``places`` has the number of each picture in ``dataset``."""
        self.encoder, self.reading = encoder, reading
        self.dataset, self.places, self.device = dataset, places, device
        self.memory = MemoryBackend(gigabytes)

    @torch.no_grad()
    def __call__(self, names: Sequence[str]) -> TextFeatures:
        """Return the features of pictures, in the order of their names."""
        entries = {name: self.memory.get(name.encode()) for name in names}
        missing = [name for name, entry in entries.items() if entry is None]
        if missing:
            features = self.encoder.encode([self._picture(name) for name in missing], self.reading)
            for name, row in zip(missing, features.split(), strict=True):
                entries[name] = self.memory.put(name.encode(), features_to_entry(row))
        found = [entries[name] for name in names]
        return TextFeatures.pad([features_from_entry(entry) for entry in found if entry]).to(self.device)

    def _picture(self, name: str) -> Image.Image:
        side = self.encoder.size
        return Image.fromarray(self.dataset.picture(self.places[name], (side, side)))


def add_image_encoder(pivot: PivotFolder, recipe: Recipe, source: str, name: str) -> Path:
    """Train the half of an image encoder by regression, and write it into the pivot.

    Returns the half's folder. An interrupted call leaves no files. Raises DataError if the recipe's data has
    no pictures.
    """
    place = new_place(pivot, "image_encoder", name)
    set_threads()
    dataset = open_dataset(kind_of_section(recipe.data), recipe.data, RejectedPictures())
    if not dataset.has_pictures:
        raise DataError("an image encoder learns from pictures with captions: choose data with pictures")
    settings, device = alignment_of(recipe), pick_device(recipe.training.device)
    pairs = _pairs(dataset, recipe)
    reference, slots = reference_slots(pivot, list(dict.fromkeys(pairs.values())), device)
    targets = {picture: slots[caption] for picture, caption in pairs.items()}
    pictures = _split(list(pairs), recipe)
    config = connector_config(recipe)
    encoder: ImageEncoder = model_of_choice("image_encoder", {"source": source}).to(device)
    half = new_half(config, encoder.spec, reference, recipe.training.seed).to(device)
    read = PictureReader(
        encoder,
        ReadingSpec(layers=half.read.layers),
        dataset,
        {dataset.sample(index).name: index for index in range(len(dataset))},
        settings.feature_cache_gb,
        device,
    )
    if config.whiten:
        whiten(half, read(pictures.training[:CALIBRATED_ON]))
    fvu = regress(half, read, pictures, targets, recipe)
    learning = Learning(
        teacher=f"the language half '{pivot.description.reference}'",
        captions=len(pictures.training),
        held_out=len(pictures.held_out),
        fvu=fvu,
    )
    with write_folder_atomic(place):
        write_half(place, pivot.description.id, encoder, config, half, learning)
    return place


def _pairs(dataset: Dataset, recipe: Recipe) -> dict[str, str]:
    """Choose pictures and one caption of each, in an order that the seed determines."""
    settings, seed = alignment_of(recipe), recipe.training.seed
    order = ShuffledOrder(len(dataset), mix_seeds(seed, CAPTION_ORDER))
    limit = min(settings.captions, settings.steps * settings.batch) + settings.held_out
    pairs = {}
    for position in range(min(limit, len(dataset))):
        sample = dataset.sample(order.index(position))
        choice = mix_seeds(seed, CAPTION_CHOICE, position) % len(sample.captions)
        pairs[sample.name] = sample.captions[choice]
    return pairs


def _split(names: Sequence[str], recipe: Recipe) -> AlignmentCaptions:
    """Keep some pictures apart to measure with."""
    measured = min(alignment_of(recipe).held_out, len(names) // 10)
    return AlignmentCaptions(training=tuple(names[measured:]), held_out=tuple(names[:measured]))
