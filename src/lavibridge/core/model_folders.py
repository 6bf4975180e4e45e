"""Checks what a model's folder makes the libraries read, before they read it.

    *.index.json          names the files of the weights      plain names of safetensors beside it only
    adapter_config.json   names another model as the base     refused
    config.json           names kernels, files, code          these keys are left out

Transformers and Diffusers open whatever file an index names, pickles and files outside included, and
`source_identity` hashes only safetensors inside. Transformers also adds an adapter that lies in the folder,
and takes the kernel of attention from the configuration, which may be a repository of code on the hub.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.files import read_json

ADAPTER = "adapter_config.json"
CODE_CHOICES = frozenset(
    {
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "fusion_config",
        "distributed_config",
        "transformers_weights",
    }
)
"""Keys of a config.json by which Transformers chooses kernels, patches or files; its defaults apply."""
_SHARD = re.compile(r"\w[\w.+-]*\.safetensors")


def without_code_choices(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json without `CODE_CHOICES`, at every level."""
    return {
        key: without_code_choices(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key not in CODE_CHOICES
    }


def check_weight_indexes(root: Path) -> None:
    """Raise ModelError if an index of weights in a model's folder names anything but safetensors beside it.

    It looks at the folder and two levels below; libraries read models from the folder and one level below.
    """
    for pattern in ("*.index*.json", "*/*.index*.json", "*/*/*.index*.json"):
        for index in sorted(root.glob(pattern)):
            if ".safetensors" in index.name:  # no loader reads an index of pickles
                check_weight_index(index)


def check_weight_index(index: Path) -> None:
    """Raise ModelError if an index of weights names anything but safetensors beside it."""
    try:
        described = read_json(index)
    except LaviError as error:
        raise ModelError(str(error)) from None
    weights = described.get("weight_map") if isinstance(described, dict) else None
    if not isinstance(weights, dict):
        raise ModelError(f"{index} has no weight_map, which names the file of each weight")
    for name in sorted({str(each) for each in weights.values()}):
        if not _SHARD.fullmatch(name):
            raise ModelError(
                f"{index} names the file {name[:200]!r}: weights are read only from plain names "
                "that end in .safetensors, beside the index"
            )


def refuse_adapter(source: str) -> ModelError:
    """Return the error for a model's folder with an adapter, which Transformers would add to the model."""
    return ModelError(
        f"'{source}' has an {ADAPTER}: it is an adapter of PEFT, which may name another model as its base, "
        "and a model is read without adapters. Merge it into its model (PEFT: `merge_and_unload`), or remove "
        "its files"
    )
