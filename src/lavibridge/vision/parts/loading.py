"""Loads one model of a Diffusers folder or of a single file, with its weights or on torch's meta device.

Weights are mapped from their files, so that memory never holds two copies of them. A GGUF file's blocks stay
as they are: Diffusers dequantises each layer while it runs.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors import SafetensorError
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.core.hub import is_local_only
from lavibridge.core.placement import Placement
from lavibridge.core.safetensors_file import SafetensorsHeader, meta_tensors, read_tensors
from lavibridge.core.sources import GGUF, cannot_load, check_weight_files, locate_source, read_model_json
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts.gguf import load_gguf_denoiser
from lavibridge.vision.parts.single_file import (
    DENOISER,
    autoencoder_names,
    denoiser_names,
    locate_configuration,
    read_single_file,
    scheduler_changes,
)


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where a vision model is read from."""

    source: str
    """What the recipe names."""
    revision: str | None
    variant: str | None
    """Number format in the names of the weights' files, such as fp16."""
    header: SafetensorsHeader | None
    """The header of a single-file checkpoint, in safetensors or GGUF; None for a folder."""
    configuration: str
    """Folder or hub id of the configurations: the source itself, unless that is a single file."""
    configuration_revision: str | None

    @property
    def is_gguf(self) -> bool:
        """Whether the denoiser is in a GGUF file."""
        return self.header is not None and self.header.file.suffix.lower() == GGUF

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return one of the JSON files of the configuration; None if there is none."""
        return read_model_json(self.configuration, name, self.configuration_revision)


def find_model_files(config: VisionModel.Config) -> ModelFiles:
    """Find a model's files. Raises ModelError for a single file that holds no text-to-image model."""
    configuration, revision = locate_configuration(config.source, config.config, config.revision)
    return ModelFiles(
        source=config.source,
        revision=config.revision,
        variant=config.variant,
        header=read_single_file(config.source, config.revision),
        configuration=configuration,
        configuration_revision=revision,
    )


def placement_of_files(placement: Placement, files: ModelFiles | None) -> Placement:
    """Return the placement of a denoiser from these files: a GGUF file's weights are in its blocks.

    Raises ModelError if they are to be quantised once more.
    """
    if files is None or not files.is_gguf:
        return placement
    if placement.quantize is not None:
        raise ModelError(
            f"vision.quantize: '{files.source}' is a GGUF file, whose weights are quantised already: leave "
            "quantize out, or give the model's folder or safetensors file"
        )
    return replace(placement, quantize="gguf")


def load_diffusers_part(
    model: Any, files: ModelFiles, folder: str, placement: Placement, is_denoiser: bool
) -> Any:
    """Load the diffusers class ``model`` from the sub-folder ``folder``, or from a single file.

    An autoencoder that the file lacks comes from its configuration's folder. On the meta device the model is
    built from its configuration, without weights. Weights load from safetensors and GGUF only. Raises
    ModelError if it cannot be loaded.
    """
    names = (
        [] if files.header is None else (denoiser_names if is_denoiser else autoencoder_names)(files.header)
    )
    if files.header is not None and names:
        settings = files.read_json(f"{folder}/config.json") or {}
        _check_fit(model, files, settings, partial(meta_tensors, files.header, names))
    if placement.is_meta:
        with torch.device("meta"):
            return model.from_config(files.read_json(f"{folder}/config.json")).to(placement.dtype)
    if files.header is not None and names and files.is_gguf:
        load = partial(_load_from_file, model, files, folder=folder)
        return load_gguf_denoiser(load, files.header.file, placement.dtype)
    if files.header is not None and names:
        tensors = read_tensors(files.header, names, placement.dtype)
        return _load_from_file(
            model, files, _with_prefix(tensors), folder=folder, torch_dtype=placement.dtype
        )
    place = locate_source(files.configuration, files.configuration_revision)
    check_weight_files(files.configuration, folder, files.configuration_revision, files.variant)
    try:
        return model.from_pretrained(
            place,
            subfolder=folder,
            revision=files.configuration_revision,
            variant=files.variant,
            torch_dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=is_local_only(place),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if files.header is not None:
            raise ModelError(
                f"'{files.source}' has no autoencoder, and neither has its configuration "
                f"'{files.configuration}': set vision.config to a folder or hub id with {folder}/ and its "
                "weights"
            ) from error
        raise cannot_load("vision model", files.source, folder, error) from error


def load_scheduler(files: ModelFiles) -> Any:
    """Load the scheduler, with what a single file states about its schedule.

    Raises ModelError if its class is no scheduler of diffusers.
    """
    settings = files.read_json("scheduler/scheduler_config.json") or {}
    found: Any = getattr(diffusers, str(settings.get("_class_name", "")), None)
    if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
        raise ModelError(
            f"'{files.configuration}' has no scheduler/scheduler_config.json naming a scheduler of Diffusers"
        )
    stated = {} if files.header is None else scheduler_changes(files.header)
    if stated.get("rescale_betas_zero_snr") and found is diffusers.PNDMScheduler:
        found = diffusers.DDIMScheduler  # the same schedule, with an option that PNDM lacks
    return found.from_config({**settings, **stated})


@contextmanager
def ignore_diffusers_deprecations() -> Iterator[None]:
    """Ignore warnings about names that a class of diffusers itself imports from an old place (Chroma)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"diffusers\.")
        yield


def quieten_diffusers() -> None:
    """Silence the loading messages of diffusers, and its progress bar if stderr is no terminal."""
    diffusers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        diffusers.utils.logging.disable_progress_bar()


def _load_from_file(model: Any, files: ModelFiles, checkpoint: Any, folder: str, **options: Any) -> Any:
    """Load a part of a single file by Diffusers' own conversion."""
    try:
        return model.from_single_file(
            checkpoint,
            config=locate_source(files.configuration, files.configuration_revision),
            config_revision=files.configuration_revision,
            subfolder=folder,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise cannot_load("vision model", files.source, folder, error) from error


def _check_fit(
    model: Any, files: ModelFiles, settings: Mapping[str, Any], tensors: Callable[[], dict[str, Tensor]]
) -> None:
    """Raise ModelError unless the converted tensors have the names and shapes of the configured model.

    ``tensors`` are on the meta device, so that nothing is read from the file.
    """
    known = SINGLE_FILE_LOADABLE_CLASSES.get(model.__name__)
    if known is None:
        raise _misfit(files, f"Diffusers reads no {model.__name__} from a single file")
    with torch.device("meta"):
        own = model.from_config(settings).state_dict()
    try:
        converted = known["checkpoint_mapping_fn"](checkpoint=_with_prefix(tensors()), config=settings)
    except Exception as error:  # the converter fails in whatever way a missing tensor leads to
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise _misfit(files, f"Diffusers cannot convert it ({reason})") from error
    found = {name: value.shape for name, value in converted.items() if value is not None}
    missing = sorted(own.keys() - found.keys())
    if missing:
        raise _misfit(files, f"it lacks {len(missing)} of {len(own)} weights, among them {missing[0]}")
    for name, value in own.items():
        if value.shape != found[name]:
            raise _misfit(files, f"{name} is {list(found[name])} in the file and {list(value.shape)} there")


def _misfit(files: ModelFiles, reason: str) -> ModelError:
    return ModelError(
        f"'{files.source}' does not fit its configuration '{files.configuration}': {reason}; set "
        "vision.config to the folder of its own configurations"
    )


def _with_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name a U-Net's tensors as in a whole checkpoint, which Diffusers' conversion expects."""
    if "input_blocks.0.0.weight" not in tensors:
        return tensors
    return {DENOISER + name: value for name, value in tensors.items()}
