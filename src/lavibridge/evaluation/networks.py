"""Judges' networks, from a folder or the hub: the one file of this room that imports transformers.

    PretrainedNetwork("openai/clip-vit-base-patch32", "CLIPModel")     finds config.json; no weights yet
        .config  .card()                                     what it is
        .model  .tokenizer  .processor                       loaded at first use, on the device in use

Weights come from safetensors only, pictures are prepared by the PIL form of the model's own processor (the
same numbers on every machine), and no code from a model's folder is ever run.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from lavibridge.core.device import pick_device
from lavibridge.core.errors import ModelError
from lavibridge.core.files import resolve_source
from lavibridge.core.identity import source_identity
from lavibridge.core.sources import read_model_json

FAULTS = (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError)
"""What transformers answers where a folder is not what it should be."""


class PretrainedNetwork:
    """A pretrained network of a named class, with what prepares its input."""

    def __init__(
        self,
        source: str,
        model_class: str = "AutoModel",
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Find the model; ModelError where there is none, before anything is drawn or loaded."""
        found = read_model_json(source, "config.json", revision)
        if found is None:
            raise ModelError(f"'{source}' has no config.json: it is no model that a judge can load")
        self.source, self.model_class, self.revision, self.dtype = source, model_class, revision, dtype
        self.config: Mapping[str, Any] = found
        self.root = resolve_source(source)

    def card(self) -> dict[str, str]:
        """Which model it is: its name, and a hash of all that it is read from (or its commit on the hub)."""
        identity = source_identity(self.source, self.revision)
        name = Path(self.root).name if Path(self.root).is_dir() else self.source
        return {"model": name, "class": self.model_class, "id": identity}

    @cached_property
    def device(self) -> torch.device:
        """Where it computes."""
        return pick_device()

    @cached_property
    def model(self) -> Any:
        """The network, in evaluation mode."""
        _quieten()
        loader = getattr(transformers, self.model_class)
        try:
            model, report = loader.from_pretrained(
                self.root,
                revision=self.revision or "main",
                dtype=self.dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except FAULTS as error:
            raise ModelError(f"'{self.source}' cannot be loaded as {self.model_class}: {error}") from error
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise ModelError(
                f"'{self.source}' lacks {len(report['missing_keys'])} weights, among them {missing}"
            )
        return model.requires_grad_(False).eval().to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.part("AutoTokenizer")

    @cached_property
    def processor(self) -> Any:
        """What prepares its pictures, in its PIL form."""
        return self.part("AutoImageProcessor", backend="pil")

    @property
    def side(self) -> int:
        """Pixels of a side that its processor brings pictures to."""
        wanted: dict[str, int] = dict(self.processor.crop_size or self.processor.size)
        return int(wanted.get("height") or wanted["shortest_edge"])

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """A batch of pictures as the model's own processor prepares them."""
        found: Tensor = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return found.to(self.device)

    def free(self) -> None:
        """Let go of the weights; they are loaded again when they are needed again."""
        self.__dict__.pop("model", None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def part(self, loader: str, **options: str) -> Any:
        """What else lies beside it, by the class of transformers that loads it."""
        try:
            return getattr(transformers, loader).from_pretrained(
                self.root, revision=self.revision or "main", trust_remote_code=False, **options
            )
        except FAULTS as error:
            raise ModelError(f"'{self.source}' has no {loader[4:]} that can be loaded: {error}") from error


def _quieten() -> None:
    """Keep the library's loading report to itself (we check it), and its bar where nobody watches."""
    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def image_features(network: PretrainedNetwork, pixels: Tensor) -> Float[Tensor, "picture width"]:
    """A feature per picture: projected where the model pairs pictures with texts, else pooled."""
    model = network.model
    pairs = "text_config" in network.config and "vision_config" in network.config
    found = model.get_image_features(pixel_values=pixels) if pairs else model(pixel_values=pixels)
    pooled = found.pooler_output
    if pooled is None:
        raise ModelError(f"'{network.source}' gives no pooled feature of a picture: take another model")
    return pooled.flatten(1)


def text_features(network: PretrainedNetwork, tokens: Mapping[str, Tensor]) -> Float[Tensor, "text width"]:
    """A projected feature per text."""
    found: Tensor = network.model.get_text_features(**tokens).pooler_output
    return found
