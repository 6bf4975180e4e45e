"""Finds a pretrained model and reads its small JSON files, before any weights load."""

import re
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from lavibridge.core.errors import LaviError, ModelError, did_you_mean
from lavibridge.core.files import LFS, read_json_object, shipped_configurations, shipped_models
from lavibridge.core.hub import is_local_only, why_hub_is_unreachable
from lavibridge.core.log import console
from lavibridge.core.model_folders import (
    ADAPTER,
    check_weight_index,
    check_weight_indexes,
    refuse_adapter,
    without_code_choices,
)
from lavibridge.core.packaged import PACKAGED, PackagedModel, packaged_on_hub, packaged_path
from lavibridge.core.paths import configurations_folder, expand_path, models_folder

GGUF = ".gguf"
"""Suffix of a model as one file in the format of llama.cpp: a language model, or a denoiser alone."""
SAFETENSORS = ".safetensors"
"""Suffix of a vision model as one file: a single-file checkpoint."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack")
"""Suffixes of weights that can run code when they are loaded, and are never loaded."""
RANDOM = "random"
"""The source of a toy: a small model of the real class with fixed random weights, available offline."""
VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema|ema)(?=[.-])")
"""The number format in the hub's file names, before the suffix, as in model.fp16.safetensors."""
DESCRIPTIONS = ("config.json", "model_index.json")
"""Files of which every model's folder has one."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_model_json(source: str, name: str, revision: str | None = None) -> dict[str, Any] | None:
    """Read the JSON file ``name`` of a model, or return None if the model has no such file.

    A config.json comes without the keys that choose code (`CODE_CHOICES`). Raises ModelError if the source
    does not exist or the file is damaged.
    """
    path = find_model_file(source, name, revision)
    if path is None:
        return None
    try:
        content = read_json_object(path)
    except LaviError as error:
        raise ModelError(str(error)) from None
    return without_code_choices(content) if path.name == "config.json" else content


def find_model_file(source: str, name: str, revision: str | None = None) -> Path | None:
    """Return the local path of a model's file ``name``, or None if the model has no such file.

    Raises ModelError if the source does not exist or is a single file.
    """
    root = locate_source(source, revision)
    for suffix, what in ((GGUF, "GGUF"), (SAFETENSORS, "safetensors")):
        if root.lower().endswith(suffix) and not Path(root).is_dir():
            raise ModelError(
                f"'{source}' is a {what} file, and its {name} is needed, which a file does not have: give a "
                "folder or a hub id (image models can be read from either format, language models from GGUF)"
            )
    path = Path(root) / name if Path(root).is_dir() else _from_hub(root, name, revision)
    return path if path is not None and path.is_file() else None


def is_hub_id(source: str | PathLike[str]) -> bool:
    """Whether a source has the form OWNER/NAME and does not lie below an existing folder."""
    text = str(source)
    return bool(_HUB_ID.fullmatch(text)) and not Path(text).parent.is_dir()


def locate_source(source: str, revision: str | None = None) -> str:
    """Return the location of a model: a folder, a GGUF or safetensors file, or a hub id.

    If the hub does not provide a model that an installed package contains, this is the path in the package,
    unless ``revision`` is given. Raises ModelError if the source does not exist.
    """
    root = resolve_source(source)
    packaged = packaged_on_hub(root)
    path = None if packaged is None or revision is not None else packaged.path()
    found = root if packaged is None or path is None or _is_on_hub(packaged) else str(path)
    if Path(found).is_dir():
        check_weight_indexes(Path(found))
    return found


def check_weight_files(source: str, folder: str, revision: str | None, variant: str | None = None) -> None:
    """Raise ModelError if Transformers or Diffusers would read more than safetensors of this model.

    `locate_source` has checked the indexes of local folders; here follow those on the hub, and adapters.
    """
    if find_model_file(source, str(Path(folder) / ADAPTER), revision) is not None:
        raise refuse_adapter(source)
    if Path(locate_source(source, revision)).is_dir():
        return
    ends = ("", f".{variant}") if variant else ("",)
    for name in ("model", "diffusion_pytorch_model"):
        for end in ends:
            for index in {f"{name}.safetensors.index{end}.json", f"{name}{end}.safetensors.index.json"}:
                path = find_model_file(source, str(Path(folder) / index), revision)
                if path is not None:
                    check_weight_index(path)


def find_gguf(source: str, revision: str | None = None) -> Path | None:
    """Return the local path of the GGUF file that a source names, or None if it names another format.

    A folder with a single GGUF file and no config.json names that file. Raises ModelError if the source does
    not exist, or if such a folder has several.
    """
    root = locate_source(source, revision)
    path = Path(root)
    if not path.is_dir():
        return _find_file(root, GGUF, revision)
    files = sorted(each for each in path.iterdir() if each.suffix.lower() == GGUF)
    if not files or any((path / name).exists() for name in DESCRIPTIONS):
        return None
    if len(files) > 1:
        listed = ", ".join(each.name for each in files[:4])
        raise ModelError(f"'{source}' has {len(files)} GGUF files ({listed}): choose one, such as {files[0]}")
    return files[0]


def find_single_file(source: str, revision: str | None = None) -> Path | None:
    """Return the local path of the safetensors or GGUF file that a source names, or None if it names none.

    Raises ModelError if the source does not exist.
    """
    if source == RANDOM:
        return None
    root = locate_source(source, revision)
    return _find_file(root, SAFETENSORS, revision) or _find_file(root, GGUF, revision)


def find_configuration(source: str, config: str | None, revision: str | None = None) -> str | None:
    """Return where the configurations of a single-file checkpoint are read from, or None if nothing names it.

    That is ``config``, or else a folder beside the file that has the file's name and a model_index.json.
    Raises ModelError if ``source`` is no single file and ``config`` is given.
    """
    file = find_single_file(source, revision)
    if config is not None:
        if file is None:
            raise ModelError(
                f"vision.config is for a single file, and '{source}' has its own configurations: leave it out"
            )
        return config
    if file is None or not (file.with_suffix("") / "model_index.json").is_file():
        return None
    return str(file.with_suffix(""))


def _find_file(root: str, suffix: str, revision: str | None) -> Path | None:
    """Return the local path of a located file with that suffix, or None if it has another."""
    path = Path(root)
    if path.suffix.lower() != suffix or path.is_dir():
        return None
    if path.is_file():
        return path
    owner, name, file = root.split("/", 2)
    found = _from_hub(f"{owner}/{name}", file, revision)
    if found is None:
        raise ModelError(f"'{owner}/{name}' on the hub has no file {file}: check the file's name")
    return found


def cannot_load(what: str, source: str, folder: str, error: Exception) -> ModelError:
    """Return the error for weights in the sub-folder ``folder`` of ``source`` that cannot be loaded, with the
    remedy."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ModelError(f"the {what} '{source}' cannot be loaded: {_misplaced(source, folder) or reason}")


def _misplaced(source: str, folder: str) -> str | None:
    """Describe why a folder has no readable weights, or return None."""
    place = Path(resolve_source(source)) / folder
    files = sorted(path for path in place.glob("*") if path.suffix in (SAFETENSORS, *PICKLES))
    pointers = [path for path in files if path.stat().st_size < 1024 and LFS in path.read_bytes()]
    if pointers:
        return f"{pointers[0]} is a pointer of git-lfs: fetch the file itself with `git lfs pull`"
    whole = [path for path in files if path.suffix == SAFETENSORS]
    variants = [path for path in whole if VARIANT.search(path.name)]
    if variants and len(variants) == len(whole):
        plain = VARIANT.sub("", variants[0].name)
        return (
            f"{place} has only the variant {variants[0].name} of its weights: rename its files, as in "
            f"`mv {variants[0].name} {plain}`, or set vision.variant to {variants[0].name.split('.')[1]}; "
            "`dtype` sets the number format in any case"
        )
    if place.is_dir() and not whole:
        found = f"{files[0].name}, but pickles are not supported" if files else "no weights"
        return f"{place} has {found}: give a folder with *.safetensors"
    return None


@cache
def _is_on_hub(model: PackagedModel) -> bool:
    """Whether the hub, or its local cache, has a packaged model; prints one note if not."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(model.hub_id, "config.json", local_files_only=is_local_only(model.hub_id))
    except Exception as error:  # the client raises errors of any network library
        reason = type(error).__name__
        console.print(
            f"note: '{model.hub_id}' comes from the package {model.package}, not the hub ({reason})"
        )
        return False
    return True


def _instead(repository: str) -> str:
    """Return a remedy if the hub cannot be reached: install a package, or correct the spelling."""
    packaged = packaged_on_hub(repository)
    if packaged is not None and packaged.path() is None:
        return f", or install it as a package: {packaged.install}"
    return did_you_mean(repository, (*shipped_models(), *PACKAGED))


def _from_hub(repository: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import constants, hf_hub_download, is_offline_mode, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        local = is_local_only(repository)
        return Path(hf_hub_download(repository, name, revision=revision, local_files_only=local))
    except LocalEntryNotFoundError:
        known = (try_to_load_from_cache(repository, each, revision=revision) for each in DESCRIPTIONS)
        if any(isinstance(path, str) for path in known):
            return None  # the cache has this model, without such a file
        why = (
            "HF_HUB_OFFLINE is set, so the hub is not used: unset it, "
            if is_offline_mode()
            else f"the hub ({constants.ENDPOINT}) cannot be reached ({why_hub_is_unreachable()}): check the "
            "spelling or the connection, "
        )
        raise ModelError(
            f"'{repository}' is not a local folder, and {why}or give a folder{_instead(repository)}"
        ) from None
    except EntryNotFoundError:
        return None
    except Exception as error:  # the client raises errors of any network library
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"'{repository}' is not a local folder, and the hub ({constants.ENDPOINT}) refuses it: {reason}"
        ) from None


def resolve_source(source: str) -> str:
    """Resolve a model source: a folder, a GGUF or safetensors file, a name, or a hub id.

    A shipped or packaged model, or a shipped configuration, becomes its path. Returns a hub id unchanged,
    also one with a file behind it (OWNER/NAME/FILE.gguf). Raises ModelError for a missing path, a pickle, an
    unknown short name, or a packaged model that is not installed.
    """
    path = expand_path(source)
    suffix = path.suffix.lower()
    is_file = suffix in (GGUF, SAFETENSORS)
    if path.is_dir() or (is_file and path.is_file()):
        return str(path)
    if suffix in PICKLES and path.is_file():
        raise ModelError(
            f"'{source}' is a pickle, which can run code when it is loaded, and is not read: take the "
            "model's safetensors file, or convert this one in an isolated environment"
        )
    shipped = shipped_models()
    if source in shipped:
        return str(models_folder() / source)
    if source in shipped_configurations():
        return str(configurations_folder() / source)
    if source in PACKAGED:
        return str(packaged_path(source))
    parts = source.split("/")
    is_path = source.startswith(("/", ".", "~")) or not all(parts) or path.exists()
    if is_file and (is_path or len(parts) < 3):
        name = "GGUF" if suffix == GGUF else "safetensors"
        raise ModelError(
            f"there is no {name} file '{source}': give its path, or OWNER/NAME/FILE{suffix} on the hub"
        )
    if is_path or source.startswith("mini-") or (len(parts) > 2 and not is_file):
        names = (*shipped, *PACKAGED)
        raise ModelError(
            f"there is no model folder '{source}'{did_you_mean(source, names)} "
            f"(models by name: {', '.join(names)}; or a folder, a GGUF or safetensors file, or a hub id such "
            "as 't5-large')"
        )
    return source
