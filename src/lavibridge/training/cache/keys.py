"""What an entry is called: a hash of everything that it depends on, so that none can be out of date.

    latents    versions, number format, autoencoder (weights, settings), bytes of the picture, size, mirrored
    features   version, number format, language model (files, tokenizer and options), layers read, text
    both       the versions of the libraries that compute them

Change any of these and the name is another one: the old entry is not found, and a new one is made.
"""

import hashlib
import json

import torch

from lavibridge.core.contracts import Reading
from lavibridge.core.identity import library_versions
from lavibridge.core.tensors import weights_hash
from lavibridge.data.pictures.decoding import DECODING_VERSION as PIXELS
from lavibridge.language.base import LanguageModel
from lavibridge.training.cache.shard import KEY_BYTES
from lavibridge.training.data.sampler import Visit
from lavibridge.vision.base import VisionModel

LATENTS_BY = ("torch", "diffusers", "pillow", "numpy")
FEATURES_BY = ("torch", "transformers", "tokenizers")
LATENTS_VERSION, FEATURES_VERSION = 1, 2
"""Raised where our code changes what is kept: cropping, scaling, encoding; templates, layers, names."""


def digest(*parts: bytes | str) -> bytes:
    """16 bytes out of parts; where one part ends and the next begins matters."""
    made = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        made.update(len(data).to_bytes(8, "big"))
        made.update(data)
    return made.digest()


def picture_key(maker: bytes, content: bytes, visit: Visit) -> bytes:
    """The key of one visit's latents; ``content`` is the hash of what the picture is made from."""
    return digest(maker, content, json.dumps([visit.size, visit.flipped]))


def caption_key(maker: bytes, caption: str) -> bytes:
    """The key of a caption's features."""
    return digest(maker, caption)


def latent_maker(vision: VisionModel, dtype: torch.dtype) -> bytes:
    """What makes latents: the autoencoder as it was loaded, to the last bit of its weights."""
    settings = {name: value for name, value in vision.autoencoder.config.items() if name[0] != "_"}
    return digest(
        f"latents {LATENTS_VERSION} {dtype}, pixels {PIXELS} {library_versions(*LATENTS_BY)}",
        type(vision).__name__,
        json.dumps(settings, sort_keys=True, default=str),
        weights_hash(vision.autoencoder),
    )


def feature_maker(language: LanguageModel, reading: Reading, dtype: torch.dtype) -> bytes:
    """What makes features: the language model and what is read of it."""
    layers = json.dumps([reading.layers, reading.context_free])
    by = library_versions(*FEATURES_BY)
    return digest(f"features {FEATURES_VERSION} {dtype} {by}", language.identity(), layers)
