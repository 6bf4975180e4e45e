"""Reads the scale of a LoRA file from its tensors, its header or its adapter_config.json.

    .alpha                                alpha / rank            a tensor for each layer: kohya and others
    adapter_config.json                   PEFT: alpha / rank, alpha / sqrt(rank) with rsLoRA, patterns; also
                                          of its LoHa and LoKr
    header, lora_adapter_metadata         the same, written by Diffusers with "unet." before each name
    header, ss_network_*                  kohya's scripts: alpha and dim for all layers, conv_alpha, conv_dim
    none of these                         1; an error for PEFT's files, whose alpha is only in their settings

The first source that exists counts. Files of other methods are an error that names the method.

Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023 (rsLoRA), arXiv 2312.03732.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavibridge import lora
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.files import parse_json, read_json_object
from lavibridge.core.low_rank import Layer, low_rank_shapes
from lavibridge.core.safetensors_file import read_safetensors_header

ADAPTER_CONFIG = "adapter_config.json"
_DIFFUSERS_HEADER = "lora_adapter_metadata"
_METHODS = {
    "boft_": "BOFT",
    "oft_": "OFT",
    "lora_E": "AdaLoRA",
    "vera_": "VeRA",
    "ia3_": "IA3",
    "on_input": "IA3",
    "a1.": "GLoRA",
    "b1.": "GLoRA",
    "diff": "whole weights",
    "weight": "whole weights",
    "lora_B.bias": "biases",
    "bias": "biases",
}
"""The start of a key's rest after its layer's name -> the method that writes it. None is supported."""

_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of PEFT's `init_lora_weights` that do not change the frozen weights."""
_PLAIN_USES = ("use_rslora", "use_dora", "use_effective_conv2d")
"""Switches of PEFT's methods that the scale or the tensors show."""
ALPHA_FIELDS = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
"""Methods that PEFT writes and this reads -> the field that holds alpha."""
_MORE_THAN_LORA = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "velora_config",
)
"""PEFT settings whose effect two factors and a scale cannot express."""


@dataclass(frozen=True, kw_only=True)
class LoraScale:
    """The scale of the layers of one network."""

    path: Path
    config: Mapping[str, Any] | None
    """Settings by PEFT's names."""
    header: Mapping[str, str]
    """The file's header, which kohya's scripts write."""

    @property
    def is_peft(self) -> bool:
        """Whether PEFT's settings give the scale."""
        return self.config is not None

    def check_method(self, name: str, method: str, has_magnitude: bool) -> None:
        """Raise ModelError if a layer's tensors are not of the method that the settings state."""
        if self.config is None:
            return
        stated = _method(self.config)
        if stated != method:
            raise ModelError(
                f"the settings of {self.path} say {stated}, but '{name}' has {method}: use the settings that "
                "belong to the file"
            )
        if self.config.get("use_dora") and not has_magnitude:
            raise ModelError(
                f"the settings of {self.path} say DoRA, but '{name}' has no magnitude: use a complete file"
            )

    def scale(self, name: str, layer: Layer, rank: int) -> float:
        """The scale of a layer without an alpha tensor. Raises ModelError if the settings' rank differs."""
        if self.config is not None:
            declared, scale = lora.lora_scale_of_peft_config(self.config, name)
        elif "ss_network_alpha" in self.header:
            declared, alpha = self._by_kohya(layer)
            scale = alpha / rank
        else:
            return 1.0
        if declared != rank and not self._is_lokr:
            raise ModelError(
                f"{self.path} has rank {rank} at '{name}', but its settings say {declared}, so its scale is "
                "unknown: use the settings that belong to the file"
            )
        return scale

    @property
    def _is_lokr(self) -> bool:
        """Whether a layer's rank need not show in its tensors: LoKr may have whole matrices."""
        return self.config is not None and _method(self.config) == "LOKR"

    def _by_kohya(self, layer: Layer) -> tuple[int, float]:
        """(rank, alpha)"""
        header = dict(self.header)
        if len(low_rank_shapes(layer, 1)[1]) == 4 and layer.kernel_size != (1, 1):
            args = _json(header.get("ss_network_args") or "{}", self.path)
            header["ss_network_dim"] = str(args.get("conv_dim", header.get("ss_network_dim")))
            header["ss_network_alpha"] = str(args.get("conv_alpha", header["ss_network_alpha"]))
        try:
            return int(float(header["ss_network_dim"])), float(header["ss_network_alpha"])
        except (KeyError, ValueError):
            raise ModelError(
                f"{self.path}: ss_network_dim and ss_network_alpha must be numbers, found "
                f"{header.get('ss_network_dim')} and {header['ss_network_alpha']}; without them its scale is "
                "unknown"
            ) from None


def read_lora_scale(path: Path, component: str, is_peft: bool) -> LoraScale:
    """Read the scales of the network that Diffusers' pipelines call ``component``.

    ``is_peft`` is True if the keys are PEFT's own. Raises ModelError if the settings are missing or describe
    more than plain LoRA.
    """
    header = _header(path)
    config: Mapping[str, Any] | None = None
    if is_peft and (path.parent / ADAPTER_CONFIG).is_file():
        config = read_json_object(path.parent / ADAPTER_CONFIG)
    elif _DIFFUSERS_HEADER in header:
        metadata = _json(header[_DIFFUSERS_HEADER], path)
        inside = {
            key.removeprefix(f"{component}."): value
            for key, value in metadata.items()
            if key.startswith(f"{component}.")
        }
        config = inside or (metadata if "r" in metadata else None)
    elif is_peft:
        raise ModelError(
            f"{path} is a PEFT file, and its folder has no {ADAPTER_CONFIG}, which holds its scale: copy it "
            "there"
        )
    if config is not None:
        _check_plain(config, path)
    return LoraScale(path=path, config=config, header=header)


def _check_plain(config: Mapping[str, Any], path: Path) -> None:
    """Raise ModelError if PEFT settings describe more than LoRA, LoHa, LoKr or DoRA."""
    method = _method(config)
    if method not in ALPHA_FIELDS:
        raise ModelError(
            f"the settings of {path} say {method}, but only LoRA, DoRA, LoHa and LoKr are supported: use "
            "another file"
        )
    needed = ("r", ALPHA_FIELDS[method])
    if not all(isinstance(config.get(name), int | float) for name in needed):
        raise ModelError(f"the settings of {path} lack {' or '.join(needed)}, so its scale is unknown")
    uses = [name for name in config if name.startswith("use_") and name not in _PLAIN_USES]
    more = [name for name in (*uses, *_MORE_THAN_LORA) if config.get(name)]
    start, biases = config.get("init_lora_weights", True), config.get("bias", "none")
    if start not in _PLAIN_STARTS:
        more.append(f"init_lora_weights: {start} (which changed the frozen weights)")
    if biases != "none":
        more.append(f"bias: {biases}")
    if more:
        raise ModelError(
            f"the settings of {path} say more than LoRA, DoRA, LoHa or LoKr ({', '.join(more)}): convert the "
            "file, or use another"
        )


def _method(config: Mapping[str, Any]) -> str:
    return str(config.get("peft_type") or "LORA").rpartition(".")[2]


def refuse_unknown_lora_method(path: object, layer: str, rest: str) -> ModelError:
    """Return the error for a key of a method that is not supported."""
    method = next((name for start, name in _METHODS.items() if rest.startswith(start)), None)
    return ModelError(
        f"{path} changes '{layer}' by '{rest}'{f', which is {method}' if method else ''}, but only LoRA, "
        "DoRA, LoHa and LoKr are supported: convert the file to LoRA, or use another"
    )


def _header(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    return dict(read_safetensors_header(path).metadata)


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        settings = parse_json(text, f"the header of {path}")
    except LaviError:
        settings = None
    if not isinstance(settings, dict):
        raise ModelError(f"the header of {path} must hold settings in JSON, found '{text[:40]}'")
    return settings
