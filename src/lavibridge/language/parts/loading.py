"""Loads a model folder of Transformers: its description, its weights and tokenizer, or its sizes only.

Only safetensors and GGUF files are loaded, and no code from a folder ever runs.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from lavibridge.core.errors import ModelError
from lavibridge.core.hub import is_local_only
from lavibridge.core.placement import Placement, check_bitsandbytes
from lavibridge.core.sources import RANDOM, cannot_load, find_gguf, locate_source, read_model_json
from lavibridge.language.base import LanguageModel
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


def _class_name(source: str, description: Mapping[str, Any], models: Mapping[str, str]) -> str:
    """The class in transformers for a config.json, by its `model_type`; ModelError if there is none."""
    found = str(description.get("model_type"))
    if found not in models:
        raise ModelError(
            f"'{source}' holds a model of type '{found}', this kind reads {' or '.join(models)}: leave "
            "`kind` out, or choose the kind that fits"
        )
    return models[found]


def load_model(
    config: LanguageModel.Config,
    models: Mapping[str, str],
    class_of: Callable[[str], Any],
    options: Mapping[str, Any],
) -> tuple[Any, Any]:
    """The model and the tokenizer at ``config.source``.

    ``models`` maps `model_type` to the name of a class, ``class_of`` a name to the class, and ``options`` are
    arguments of building it. Raises ModelError if anything is missing or does not fit.
    """
    source, revision = config.source, config.revision
    description, folder = load_language_config(source, revision)
    model = class_of(_class_name(source, description, models))
    file = find_gguf(source, revision)
    if file is None:
        backbone = load_weights(model, source, folder, revision, Placement.of(config), **options)
        tokenizer = load_tokenizer(source, "tokenizer" if folder else "", revision)
    else:
        quieten_transformers()
        backbone, tokenizer, missing = load_gguf(file, model, config.dtype, options)
        _check_complete(missing, source)
    check_vocabulary(tokenizer, len(backbone.get_input_embeddings().weight), source)
    return backbone, tokenizer


def load_weights(
    model: Any, source: str, folder: str, revision: str | None, placement: Placement, **options: Any
) -> Any:
    """A class of transformers, placed, with the weights in the sub-folder ``folder`` of ``source``.

    Raises ModelError if they cannot be loaded or some are missing.
    """
    quieten_transformers()
    try:
        backbone, report = model.from_pretrained(
            locate_source(source, revision),
            subfolder=folder,
            revision=revision or "main",
            dtype=placement.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=is_local_only(),
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
    """The tokenizer in the sub-folder ``folder`` of ``source``; ModelError if it cannot be loaded."""
    try:
        return transformers.AutoTokenizer.from_pretrained(
            locate_source(source, revision),
            subfolder=folder,
            revision=revision or "main",
            trust_remote_code=False,
            local_files_only=is_local_only(),
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise cannot_load("tokenizer of", source, folder, error) from error


def load_meta_model(
    config: LanguageModel.Config,
    models: Mapping[str, str],
    class_of: Callable[[str], Any],
    options: Mapping[str, Any],
) -> Any:
    """The model at ``config.source`` on torch's meta device: every size, read from its config.json alone."""
    model, description = _class_and_description(config, models, class_of)
    return load_meta_weights(model, description, Placement.of(config), **options)


def read_settings(
    config: LanguageModel.Config,
    models: Mapping[str, str],
    class_of: Callable[[str], Any],
    options: Mapping[str, Any],
) -> Any:
    """The configuration object of the model at ``config.source``, from its config.json alone."""
    model, description = _class_and_description(config, models, class_of)
    return _settings_of(model, description, options)[0]


def _class_and_description(
    config: LanguageModel.Config, models: Mapping[str, str], class_of: Callable[[str], Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the class of a model and its config.json, without weights."""
    description, _ = load_language_config(config.source, config.revision)
    return class_of(_class_name(config.source, description, models)), description


def stated_limit(source: str, revision: str | None) -> int | None:
    """The longest prompt in tokens that a tokenizer_config.json states; None if it states none."""
    if find_gguf(source, revision) is not None:
        return None
    folder = "tokenizer" if load_language_config(source, revision)[1] else ""
    found = read_model_json(source, str(Path(folder) / "tokenizer_config.json"), revision) or {}
    limit = found.get("model_max_length")
    return int(limit) if isinstance(limit, int) and limit < LONGEST_LIMIT else None


def load_meta_weights(
    model: Any, description: Mapping[str, Any], placement: Placement, **options: Any
) -> Any:
    """A class of transformers on the meta device: every size of the config.json ``description``."""
    settings, rest = _settings_of(model, description, options)
    with torch.device("meta"):
        return model(settings, **rest).to(placement.dtype)


def _settings_of(
    model: Any, description: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """A class's configuration object, with the options that it knows, and the other options."""
    inner = description.get(model.config_class.base_config_key, description)
    found: tuple[Any, dict[str, Any]] = model.config_class.from_dict(
        dict(inner), return_unused_kwargs=True, **options
    )
    return found


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
