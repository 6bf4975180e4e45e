"""Loads metrics' networks from a folder or the hub; the only file of this package that imports transformers.

    PretrainedNetwork("openai/clip-vit-base-patch32", "CLIPModel")     reads config.json, no weights yet
        .config  .card()                                     identify the model
        .model  .tokenizer  .processor                       loaded at first use, on the current device

Loads weights from safetensors only, prepares pictures with the PIL version of the model's own processor (the
same numbers on every machine), and never runs code from a model's folder.
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
from lavibridge.core.hub import is_local_only
from lavibridge.core.identity import source_identity
from lavibridge.core.sources import check_weight_files, read_model_json, resolve_source

_FAULTS = (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError)
"""Exceptions of transformers for a folder that it cannot load."""


class PretrainedNetwork:
    """A pretrained network of a given class, with its tokenizer and image processor."""

    def __init__(
        self,
        source: str,
        model_class: str = "AutoModel",
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Find the model. Raises ModelError, before it loads weights, if there is none."""
        found = read_model_json(source, "config.json", revision)
        if found is None:
            raise ModelError(
                f"'{source}' has no config.json: give a folder or hub id of a model that transformers can "
                f"load"
            )
        self.source, self.model_class, self.revision, self.dtype = source, model_class, revision, dtype
        self.config: Mapping[str, Any] = found
        self.root = resolve_source(source)

    def card(self) -> dict[str, str]:
        """The model's name, and a hash of its files or its commit on the hub."""
        identity = source_identity(self.source, self.revision)
        name = Path(self.root).name if Path(self.root).is_dir() else self.source
        return {"model": name, "class": self.model_class, "id": identity}

    @cached_property
    def device(self) -> torch.device:
        """The device that it runs on."""
        return pick_device()

    @cached_property
    def model(self) -> Any:
        """The network, in evaluation mode."""
        _quieten()
        check_weight_files(self.source, "", self.revision)
        loader = getattr(transformers, self.model_class)
        try:
            model, report = loader.from_pretrained(
                self.root,
                config=self._settings(),
                revision=self.revision or "main",
                dtype=self.dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=is_local_only(self.root),
                output_loading_info=True,
            )
        except _FAULTS as error:
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
        """Its image processor, in the PIL version."""
        return self.part("AutoImageProcessor", backend="pil")

    @property
    def side(self) -> int:
        """Pixels per side after its processor's resize."""
        size: dict[str, int] = dict(self.processor.crop_size or self.processor.size)
        return int(size.get("height") or size["shortest_edge"])

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Prepare a batch of images with the model's own processor."""
        found: Tensor = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return found.to(self.device)

    def free(self) -> None:
        """Free the weights; the next use loads them again."""
        self.__dict__.pop("model", None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _settings(self) -> Any:
        """Return the configuration, which `read_model_json` has freed from choices of code."""
        kind = self.config.get("model_type")
        if kind not in transformers.CONFIG_MAPPING:
            raise ModelError(
                f"'{self.source}' is a '{kind}', which transformers {transformers.__version__} does not "
                "know: update transformers, or take another model"
            )
        return transformers.CONFIG_MAPPING[kind].from_dict(dict(self.config))

    def part(self, loader: str, **options: str) -> Any:
        """Another component of the model, by the transformers class that loads it."""
        try:
            return getattr(transformers, loader).from_pretrained(
                self.root,
                revision=self.revision or "main",
                trust_remote_code=False,
                local_files_only=is_local_only(self.root),
                **options,
            )
        except _FAULTS as error:
            raise ModelError(f"'{self.source}' has no {loader[4:]} that can be loaded: {error}") from error


def _quieten() -> None:
    """Silence the library's loading report, which this module checks, and its bar outside a terminal."""
    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def network_image_features(network: PretrainedNetwork, pixels: Tensor) -> Float[Tensor, "picture width"]:
    """Compute one feature per image: projected if the model is a dual encoder, otherwise pooled."""
    model = network.model
    pairs = "text_config" in network.config and "vision_config" in network.config
    found = model.get_image_features(pixel_values=pixels) if pairs else model(pixel_values=pixels)
    pooled = found.pooler_output
    if pooled is None:
        raise ModelError(f"'{network.source}' gives no pooled image feature: choose another model")
    return pooled.flatten(1)


def network_text_features(
    network: PretrainedNetwork, tokens: Mapping[str, Tensor]
) -> Float[Tensor, "text width"]:
    """Compute one projected feature per text."""
    found: Tensor = network.model.get_text_features(**tokens).pooler_output
    return found
