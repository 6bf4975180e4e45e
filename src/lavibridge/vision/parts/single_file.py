"""Recognises a single-file checkpoint by its header, and finds the configurations that it goes with.

    denoiser        model.diffusion_model.*, or without that prefix
    autoencoder     first_stage_model.* or vae.*
    text encoders   cond_stage_model.*, conditioner.* or text_encoders.*; `language/parts/single_file.py`

A GGUF file has the denoiser alone, under the same names, in blocks of 2 to 8 bits a weight. A file holds
weights in the layout of the model's own authors, and no configuration. `vision.config` names
one; otherwise a folder beside the file, or the published configuration that the tensors' shapes show.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from lavibridge.core.errors import ModelError
from lavibridge.core.files import shipped_configurations
from lavibridge.core.gguf_file import DENOISERS, check_gguf_file, read_gguf_header
from lavibridge.core.paths import configurations_folder
from lavibridge.core.safetensors_file import (
    SafetensorsHeader,
    StoredTensor,
    check_number_types,
    read_safetensors_header,
)
from lavibridge.core.sources import GGUF, find_configuration, find_single_file

DENOISER = "model.diffusion_model."
AUTOENCODER = ("first_stage_model.", "vae.")
_UNET, _MMDIT, _FLUX = "input_blocks.0.0.weight", "joint_blocks.0.x_block.attn.qkv.weight", "img_in.weight"
_PATCHES = "x_embedder.proj.weight"
_FIRST = {
    _UNET: "out.2.weight",
    _PATCHES: "final_layer.linear.weight",
    _FLUX: "final_layer.linear.weight",
}
"""A denoiser's first layer -> its last, by the names of the model's authors."""
_UNETS = ("sd1", "sdxl")
"""Architectures of GGUF files that hold U-Nets."""
_BY_CONTEXT = {768: "sd1", 2048: "sdxl"}
"""Width of the tokens that a U-Net reads -> its configuration."""
_GIVE_FOLDER = "give a text-to-image model as its own single file, as a folder or as a hub id"
_OTHERS: tuple[tuple[str, str, str], ...] = (
    (
        r"\.lora_|^lora_|\.lora\.|\.hada_w|\.lokr_w|\.oft_",
        "a LoRA",
        "add it to a bridge with read_lora_file, and give the model that it belongs to as `source`",
    ),
    (
        r"^control_model\.|^controlnet|controlnet_cond_embedding|input_hint_block|^control_",
        "a ControlNet",
        "connect it with to_diffusers, and give the model that it steers as `source`",
    ),
    (r"^(image_proj|ip_adapter)\.", "an IP-Adapter", _GIVE_FOLDER),
    (r"^(emb_params|string_to_param|clip_[lg])$", "a textual inversion", _GIVE_FOLDER),
    (
        r"motion_modules|temporal_transformer|time_stack|time_mixer|^(model\.diffusion_model\.)?(patchify_proj|"
        r"txt_in\.individual_token_refiner|vace_blocks|head\.modulation)|^net\.(blocks|x_embedder)\.",
        "a video model",
        _GIVE_FOLDER,
    ),
    (r"^audio_vae\.|^pretransform\.|^model\.model\.transformer\.", "an audio model", _GIVE_FOLDER),
    (r"^edm_(mean|std)$|^edm_vpred", "a model with the schedule of EDM", _GIVE_FOLDER),
    (r"conditioner\.embedders\.0\.model\.", "the refiner of SDXL", "give the base model"),
    (
        r"^(down_blocks|transformer_blocks|single_transformer_blocks)\.\d+\.",
        "one part of a Diffusers folder",
        "give the folder",
    ),
)
"""Pattern of a tensor's name, what a file with such a tensor is, and what to do."""
_INPUTS = {
    5: "a depth-to-image model (5 input channels)",
    7: "an upscaler (7 input channels)",
    8: "an image-editing model (8 input channels)",
    9: "an inpainting U-Net (9 input channels)",
}
_UNREAD = (
    "distilled_guidance_layer.in_proj.weight",
    "double_stream_modulation_img.lin.weight",
    "single_stream_modulation.lin.weight",
)
"""Tensors of models that resemble FLUX.1 and are no FLUX.1: Chroma and FLUX.2."""


def read_single_file(source: str, revision: str | None = None) -> SafetensorsHeader | None:
    """Return the header of a single-file checkpoint; None if the source is no such file.

    Raises ModelError if the file is damaged, or holds no text-to-image model.
    """
    file = find_single_file(source, revision)
    if file is None:
        return None
    found = file.stat()
    return _checked_header(file.absolute(), found.st_size, found.st_mtime_ns)


def locate_configuration(
    source: str, config: str | None, revision: str | None = None
) -> tuple[str, str | None]:
    """Return where a model's configurations are read from, and the revision there.

    That is the source itself, unless it is a single-file checkpoint. Raises ModelError if a single file needs
    a configuration to be named.
    """
    named = find_configuration(source, config, revision)
    header = read_single_file(source, revision)
    if header is None:
        return source, revision
    return named or str(configurations_folder() / recognise(header)), None


def recognise(header: SafetensorsHeader) -> str:
    """Return the name of the published configuration that a file's tensors show.

    Raises ModelError if they show none, or several.
    """
    shapes = _denoiser_shapes(header)
    if _UNET in shapes:
        return _recognise_unet(header, shapes)
    if _MMDIT in shapes:
        is_dual = "joint_blocks.0.x_block.attn2.qkv.weight" in shapes
        known = {(1536, False): "sd3", (1536, True): "sd3.5-medium", (2432, False): "sd3.5-large"}
        found = known.get((_inputs(shapes[_MMDIT]), is_dual))
        if found is not None:
            return found
    if _FLUX in shapes and shapes[_FLUX][0] == 3072:
        return "flux1-dev" if "guidance_in.in_layer.weight" in shapes else "flux1-schnell"
    raise _unknown(header)


def scheduler_changes(header: SafetensorsHeader) -> dict[str, Any]:
    """Return what a file states about its schedule: an empty tensor `v_pred`, one `ztsnr`, or metadata.

    `v_pred` means that the model predicts v; `ztsnr` that it was trained with zero terminal SNR (Lin et al.
    2023, arXiv 2305.08891).
    """
    stated = header.metadata.get("modelspec.prediction_type")
    found: dict[str, Any] = {}
    if "v_pred" in header.tensors or stated == "v":
        found["prediction_type"] = "v_prediction"
    elif stated == "epsilon":
        found["prediction_type"] = "epsilon"
    if "ztsnr" in header.tensors:
        found |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return found


def denoiser_names(header: SafetensorsHeader) -> list[str]:
    """Return the names of the denoiser's tensors."""
    inside = [name for name in header.tensors if name.startswith(DENOISER)]
    return inside or list(header.tensors)


def autoencoder_names(header: SafetensorsHeader) -> list[str]:
    """Return the names of the autoencoder's tensors; none if the file has no autoencoder."""
    return [name for name in header.tensors if name.startswith(AUTOENCODER)]


@lru_cache(maxsize=8)
def _checked_header(file: Path, size: int, mtime_ns: int) -> SafetensorsHeader:
    """Read and check a header; a file of another size or time is another file."""
    if file.suffix.lower() == GGUF:
        return _gguf_header(file, size)
    header = read_safetensors_header(file)
    _refuse_other_models(header)
    check_number_types(header)
    return header


def _gguf_header(file: Path, size: int) -> SafetensorsHeader:
    """Read and check the header of a GGUF file, whose tensors it describes like those of the other format."""
    found = read_gguf_header(file)
    if found.architecture not in DENOISERS:
        raise ModelError(
            f"'{file}' holds the language model '{found.architecture}', no image model: give it as "
            "language.source"
        )
    if found.architecture in _UNETS:
        raise ModelError(
            f"'{file}' is the U-Net '{found.architecture}', whose convolutions Diffusers does not read from "
            "GGUF: take the model's safetensors file, and set vision.quantize"
        )
    check_gguf_file(file, found, size)
    tensors = {name: StoredTensor(dtype=each.dtype, shape=each.shape) for name, each in found.tensors.items()}
    header = SafetensorsHeader(file=file, metadata={}, tensors=tensors)
    _refuse_other_models(header)
    return header


def _denoiser_shapes(header: SafetensorsHeader) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(DENOISER): header.tensors[name].shape for name in denoiser_names(header)}


def _refuse_other_models(header: SafetensorsHeader) -> None:
    """Raise ModelError, naming what it is, if a file holds no text-to-image model."""
    for pattern, what, remedy in _OTHERS:
        name = next((name for name in header.tensors if re.search(pattern, name)), None)
        is_refiner = what.startswith("the refiner")
        if name is not None and not (is_refiner and _has(header, "conditioner.embedders.1.")):
            raise ModelError(f"'{header.file}' is {what} ({name}), no text-to-image model: {remedy}")
    for name, tensor in header.tensors.items():
        if len(tensor.shape) == 5:
            raise ModelError(
                f"'{header.file}' is a video model ({name} has shape {list(tensor.shape)}), no text-to-image "
                f"model: {_GIVE_FOLDER}"
            )
    shapes = _denoiser_shapes(header)
    known = [first for first in (_UNET, _MMDIT, _FLUX) if first in shapes]
    if not known or any(name in shapes for name in _UNREAD):
        raise _unknown(header)
    for first, last in _FIRST.items():
        if first in shapes and last in shapes:
            _refuse_other_inputs(header, first, shapes)


def _refuse_other_inputs(
    header: SafetensorsHeader, first: str, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise ModelError for a denoiser that takes more than noisy latents."""
    inputs, outputs = _inputs(shapes[first]), (*shapes[_FIRST[first]], 0)[0]
    patch = prod(shapes[first][2:]) if first == _PATCHES else 1  # each output token is a patch of pixels
    if outputs == inputs * patch:
        return
    what = _INPUTS.get(inputs) if first == _UNET else None
    raise ModelError(
        f"'{header.file}' is {what or f'a model with {inputs} input and {outputs} output channels'}: it "
        "takes an image as an additional input; choose a text-to-image model"
    )


def _recognise_unet(header: SafetensorsHeader, shapes: Mapping[str, tuple[int, ...]]) -> str:
    widths = {_inputs(shape) for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")}
    width = widths.pop() if len(widths) == 1 else 0
    if width != 1024:
        if width not in _BY_CONTEXT:
            raise _unknown(header)
        return _BY_CONTEXT[width]
    stated = scheduler_changes(header).get("prediction_type")
    if stated is None:
        raise ModelError(
            f"'{header.file}' is Stable Diffusion 2, and does not state whether it predicts noise (as the "
            "512-pixel base model) or v (as the 768-pixel model): set vision.config to sd2-base or sd2"
        )
    return "sd2" if stated == "v_prediction" else "sd2-base"


def _inputs(shape: tuple[int, ...]) -> int:
    """Return the number of inputs of a layer's weight; 0 if it is no such weight."""
    return shape[1] if len(shape) > 1 else 0


def _has(header: SafetensorsHeader, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in header.tensors)


def _unknown(header: SafetensorsHeader) -> ModelError:
    """Return the error for a file that resembles no published model."""
    named = ", ".join(sorted(header.tensors)[:2]) or "none"
    if any(name.startswith(AUTOENCODER) or name == "decoder.conv_in.weight" for name in header.tensors):
        what = "holds an autoencoder and no denoiser that is read"
    else:
        what = "holds none of the models that are read from a single file"
    return ModelError(
        f"'{header.file}' {what} (its tensors: {named}; published models that are read: "
        f"{', '.join(shipped_configurations())}): if it is one of these with other sizes, set vision.config "
        f"to the folder of its configurations; otherwise {_GIVE_FOLDER}"
    )
