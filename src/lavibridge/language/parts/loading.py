"""Loads a model folder of Transformers: its description, its weights and tokenizer, or its sizes only.

Only safetensors and GGUF files are loaded, and no code from a folder ever runs.
"""

import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from lavibridge.core.errors import ModelError
from lavibridge.core.hub import is_local_only
from lavibridge.core.placement import Placement, check_bitsandbytes
from lavibridge.core.sources import (
    RANDOM,
    cannot_load,
    check_weight_files,
    find_gguf,
    locate_source,
    read_model_json,
)
from lavibridge.language.base import LanguageModel
from lavibridge.language.parts.architecture import Architecture, configured_architecture
from lavibridge.language.parts.gguf import load_gguf, read_gguf_config
from lavibridge.language.parts.vocabulary import check_vocabulary

LONGEST_LIMIT = 100_000
"""Tokenizers without a limit of their own state an astronomical one."""


def load_language_config(source: str, revision: str | None) -> tuple[dict[str, Any], str]:
    """A model's config.json and its sub-folder: in a pipeline's folder, that of its text encoder.

    A GGUF file has its configuration in its header.
    """
    file = find_gguf(source, revision)
    if file is not None:
        return read_gguf_config(file), ""
    pipeline = read_model_json(source, "model_index.json", revision)
    folder = "" if pipeline is None else "bert" if "bert" in pipeline else "text_encoder"
    description = read_model_json(source, str(Path(folder) / "config.json"), revision)
    if description is None:
        place = f" in {folder}/" if folder else ""
        raise ModelError(f"'{source}' has no config.json{place}: it is not a model folder of transformers")
    return description, folder


def class_name(source: str, description: Mapping[str, Any], models: Mapping[str, str]) -> str:
    """Return the transformers class of a config.json's `model_type`. Raises ModelError if none fits."""
    found = str(description.get("model_type"))
    if found not in models:
        raise ModelError(
            f"'{source}' holds a model of type '{found}', this kind reads {' or '.join(models)}: leave "
            "`kind` out, or choose the kind that fits"
        )
    return models[found]


def model_class(place: str) -> Any:
    """A class of transformers that the library does not export: MODEL.MODULE.CLASS."""
    module, _, name = place.rpartition(".")
    return getattr(import_module(f"transformers.models.{module}"), name)


def load_model(config: LanguageModel.Config, architecture: Architecture) -> tuple[Any, Any]:
    """The model and the tokenizer at ``config.source``. Raises ModelError if anything is missing or wrong."""
    source, revision = config.source, config.revision
    folder = load_language_config(source, revision)[1]
    file = find_gguf(source, revision)
    if file is None:
        backbone = load_weights(
            architecture.model,
            source,
            folder,
            revision,
            Placement.of(config),
            config=architecture.settings,
            key_mapping=dict(architecture.key_mapping),
            **architecture.options,
        )
        tokenizer = load_tokenizer(source, "tokenizer" if folder else "", revision)
    else:
        quieten_transformers()
        backbone, tokenizer, missing = load_gguf(file, architecture, config.dtype)
        _check_complete(missing, source)
    check_vocabulary(tokenizer, len(backbone.get_input_embeddings().weight), source)
    return backbone, tokenizer


def load_weights(
    model: Any, source: str, folder: str, revision: str | None, placement: Placement, **options: Any
) -> Any:
    """A class of transformers, placed, with the weights in the sub-folder ``folder`` of ``source``.

    Without ``config`` among the options, its configuration is that in the folder, which never chooses code.
    Raises ModelError if they cannot be loaded or some are missing.
    """
    quieten_transformers()
    place = locate_source(source, revision)
    check_weight_files(source, folder, revision)
    if "config" not in options:
        description = read_model_json(source, str(Path(folder) / "config.json"), revision) or {}
        options["config"] = configured_architecture(model, description, {}).settings
    try:
        backbone, report = model.from_pretrained(
            place,
            subfolder=folder,
            revision=revision or "main",
            dtype=placement.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=is_local_only(place),
            output_loading_info=True,
            **{**_quantization(placement), **options},
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise cannot_load("language model", source, folder, error) from error
    _check_complete(report["missing_keys"], source, folder)
    return backbone


def _check_complete(missing: Collection[str], source: str, folder: str = "") -> None:
    """Raise ModelError where weights are missing."""
    if missing:
        place = f" ({folder})" if folder else ""
        named = ", ".join(sorted(missing)[:3])
        raise ModelError(f"'{source}'{place} lacks {len(missing)} weights, among them {named}")


def load_tokenizer(source: str, folder: str, revision: str | None) -> Any:
    """Load the tokenizer in the sub-folder ``folder`` of ``source``. Raises ModelError if that fails."""
    place = locate_source(source, revision)
    try:
        return transformers.AutoTokenizer.from_pretrained(
            place,
            subfolder=folder,
            revision=revision or "main",
            trust_remote_code=False,
            local_files_only=is_local_only(place),
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise cannot_load("tokenizer of", source, folder, error) from error


def build_on_meta(architecture: Architecture, dtype: torch.dtype) -> Any:
    """The model on torch's meta device, with every size of its configuration."""
    with torch.device("meta"):
        model = architecture.model(architecture.settings, **architecture.options)
        return model.to(dtype)


def stated_limit(source: str, revision: str | None) -> int | None:
    """The longest prompt in tokens that a tokenizer_config.json states; None if it states none."""
    if find_gguf(source, revision) is not None:
        return None
    folder = "tokenizer" if load_language_config(source, revision)[1] else ""
    found = read_model_json(source, str(Path(folder) / "tokenizer_config.json"), revision) or {}
    limit = found.get("model_max_length")
    return int(limit) if isinstance(limit, int) and limit < LONGEST_LIMIT else None


def check_quantization(config: LanguageModel.Config) -> None:
    """Raise ModelError if the configuration needs bitsandbytes, which is missing, or quantises a GGUF."""
    if config.quantize is None:
        return
    check_bitsandbytes("language.quantize", config.quantize)
    if config.source != RANDOM and find_gguf(config.source, config.revision) is not None:
        raise ModelError(
            f"language.quantize: '{config.source}' is a GGUF file, which is dequantised as it loads: give "
            "the model's folder with safetensors, or leave quantize out"
        )


def _quantization(placement: Placement) -> dict[str, Any]:
    """Arguments that load the frozen weights in 8 or 4 bits."""
    if placement.quantize is None:
        return {}
    return {
        "quantization_config": transformers.BitsAndBytesConfig(
            load_in_8bit=placement.quantize == "8bit",
            load_in_4bit=placement.quantize == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=placement.dtype,
        )
    }


def quieten_transformers() -> None:
    """Silence the library's loading report, which we check, and its progress bar without a terminal."""
    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
