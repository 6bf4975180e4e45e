"""Computes keys: an entry's key is a hash of everything that affects it, so no entry can be out of date.

    latents    versions, number format, autoencoder (weights, settings), bytes of the picture, size, mirrored
    features   version, number format, language model (files, tokenizer and options), layers read, text
    both       the versions of the libraries that compute them

If any of these changes, the key changes too: the old entry is not found, and a new one is computed.
"""

import hashlib
import json

import torch

from lavibridge.core.contracts import ReadingSpec
from lavibridge.core.identity import library_versions, weights_hash
from lavibridge.data.pictures.decoding import DECODING_VERSION as PIXELS
from lavibridge.language.base import LanguageModel
from lavibridge.training.cache.shard import KEY_BYTES
from lavibridge.training.data.sampler import Visit
from lavibridge.vision.base import VisionModel

LATENTS_BY = ("torch", "diffusers", "pillow", "numpy")
FEATURES_BY = ("torch", "transformers", "tokenizers")
LATENTS_VERSION, FEATURES_VERSION = 1, 2
"""Increase these when our code changes the entries: cropping, scaling, encoding; templates, layers, names."""


def key_digest(*parts: bytes | str) -> bytes:
    """Hash parts to 16 bytes. Includes their lengths, so that parts cannot run into each other."""
    made = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        made.update(len(data).to_bytes(8, "big"))
        made.update(data)
    return made.digest()


def picture_key(maker: bytes, content: bytes, visit: Visit) -> bytes:
    """The key of one visit's latents; ``content`` is the hash of the image's file or scene."""
    return key_digest(maker, content, json.dumps([visit.size, visit.flipped]))


def caption_key(maker: bytes, caption: str) -> bytes:
    """The key of a caption's features."""
    return key_digest(maker, caption)


def latent_maker_key(vision: VisionModel, dtype: torch.dtype) -> bytes:
    """Hash what affects all latents: number format, libraries, the autoencoder's class, settings, weights."""
    settings = {name: value for name, value in vision.autoencoder.config.items() if name[0] != "_"}
    return key_digest(
        f"latents {LATENTS_VERSION} {dtype}, pixels {PIXELS} {library_versions(*LATENTS_BY)}",
        type(vision).__name__,
        json.dumps(settings, sort_keys=True, default=str),
        weights_hash(vision.autoencoder),
    )


def feature_maker_key(language: LanguageModel, reading: ReadingSpec, dtype: torch.dtype) -> bytes:
    """Hash what affects all features: number format, libraries, the language model and the layers read."""
    layers = json.dumps([reading.layers, reading.context_free])
    by = library_versions(*FEATURES_BY)
    return key_digest(f"features {FEATURES_VERSION} {dtype} {by}", language.identity(), layers)
