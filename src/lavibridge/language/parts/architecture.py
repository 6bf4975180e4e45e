"""What the Transformers library states about a text model, so that the model needs no file of its own.

    config.json --> configuration of the text part --AutoModel--> class --> its inputs, layers and positions

The configuration of a model that also reads images or sound contains one for its text part. That part alone
is built, and the other parts' weights are never read.
"""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from torch import nn

from lavibridge.core.errors import ModelError

TEXT_PART = {r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?": ""}
"""Start of the weights' names of a text part in the files of the whole model, which is left out."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A language model before its weights are loaded."""

    model: Any
    """The class in Transformers."""
    settings: Any
    """Its configuration object."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The other arguments that build it."""
    key_mapping: Mapping[str, str] = field(default_factory=dict)
    """Regular expression -> replacement, for the names of weights in files."""


def configured_architecture(
    model: Any, description: Mapping[str, Any], options: Mapping[str, Any]
) -> Architecture:
    """Return the architecture of a class of Transformers with the configuration ``description``.

    ``options`` replace values of the configuration, or are arguments that build the model.
    """
    inner = description.get(model.config_class.base_config_key, description)
    settings, rest = model.config_class.from_dict(dict(inner), return_unused_kwargs=True, **options)
    return Architecture(model=model, settings=settings, options=rest)


def find_text_architecture(source: str, description: Mapping[str, Any]) -> Architecture:
    """Return the architecture of the text part of the model that a config.json describes.

    Raises ModelError with what the model is and what is missing, if the installed Transformers cannot read
    text with it.
    """
    whole = read_whole_settings(source, description)
    name = whole.model_type
    if whole.is_encoder_decoder:
        raise ModelError(
            f"'{source}' is a '{name}', an encoder-decoder, and no language family reads its encoder: take "
            "another model, or add a file to language/ that names the encoder's class (see t5.py)"
        )
    try:
        settings = whole.get_text_config()
    except ValueError as error:
        raise ModelError(
            f"'{source}' is a '{name}' with several text parts, and its configuration does not state which "
            "one reads prompts: add a file to language/ that names the class"
        ) from error
    known = type(settings) in transformers.MODEL_MAPPING
    model = transformers.MODEL_MAPPING[type(settings)] if known else None
    if isinstance(model, tuple):  # of several classes, the first has every layer
        model = model[0]
    if model is None or "input_ids" not in forward_inputs(model):
        part = f"text part '{settings.model_type}'" if settings is not whole else "model"
        raise ModelError(
            f"'{source}' is a '{name}', whose {part} is no class of AutoModel that reads tokens: take a "
            "language model, or add a file to language/ that names the class"
        )
    lacking = [each for each in ("hidden_size", "num_hidden_layers") if not hasattr(settings, each)]
    if lacking:
        raise ModelError(
            f"'{source}' is a '{name}', whose configuration has no {' and no '.join(lacking)}: add a file to "
            "language/ that states the sizes"
        )
    if settings is whole:
        return Architecture(model=model, settings=settings, options=_without_pooling(model))
    quantization = description.get("quantization_config")
    if quantization is not None:  # without it, quantised weights would be read as plain numbers
        settings.quantization_config = quantization
    return Architecture(
        model=model, settings=settings, options=_without_pooling(model), key_mapping=TEXT_PART
    )


def read_whole_settings(source: str, description: Mapping[str, Any]) -> Any:
    """Return the configuration object of a config.json.

    Raises ModelError if the installed Transformers does not know the type, or the values do not fit it.
    """
    name = description.get("model_type")
    if name not in transformers.CONFIG_MAPPING:
        own = " (its own code, which is never run, comes with it)" if "auto_map" in description else ""
        what = "states no model_type in config.json" if name is None else f"is a '{name}'{own}"
        raise ModelError(
            f"'{source}' {what}, which no language family accepts and transformers "
            f"{transformers.__version__} does not know: update transformers, or take another model"
        )
    try:
        return transformers.CONFIG_MAPPING[name].from_dict(dict(description))
    except Exception as error:  # the library's checks raise errors of several kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"the config.json of '{source}' does not describe a '{name}' of transformers "
            f"{transformers.__version__}: {reason}"
        ) from error


def forward_inputs(model: Any) -> Collection[str]:
    """Return the names of the arguments that a model, or its class, is called with."""
    return inspect.signature(model.forward).parameters.keys()


def is_causal(settings: Any) -> bool:
    """Whether tokens attend to earlier ones only, unless the model is a masked one or says otherwise."""
    if getattr(settings, "use_bidirectional_attention", None) in (True, "all"):
        return False
    is_masked_model = type(settings) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    return not is_masked_model and getattr(settings, "is_causal", True) is not False


def attention_layers(backbone: nn.Module, settings: Any) -> tuple[str, ...]:
    """Return the ends of the names of all linear layers in the attention of the blocks, for LoRA.

    Leaves out gates with one output for each head, which are narrower than any useful rank.
    """
    counts = (getattr(settings, name, 0) for name in ("num_attention_heads", "linear_num_value_heads"))
    heads = max(int(count or 0) for count in counts)
    found: dict[str, None] = {}
    for name, layer in backbone.named_modules():
        parts = name.split(".")
        first = next((i for i, part in enumerate(parts[:-1]) if _is_attention(part)), None)
        if first is not None and isinstance(layer, nn.Linear) and layer.out_features > heads:
            found[".".join(parts[first:])] = None
    return tuple(found)


def position_table(backbone: nn.Module) -> nn.Embedding | None:
    """Return the table of learned position vectors, or None if the model has none."""
    for name, module in backbone.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and ("position" in last or last == "wpe"):
            return module
    return None


def _is_attention(name: str) -> bool:
    return "attn" in name.lower() or "attention" in name.lower()


def _without_pooling(model: Any) -> dict[str, Any]:
    """Return the argument that leaves out a pooling layer, which published encoders often lack."""
    is_optional = "add_pooling_layer" in inspect.signature(model.__init__).parameters
    return {"add_pooling_layer": False} if is_optional else {}
