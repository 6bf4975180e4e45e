"""Finds components by package and kind: the file name is the kind, so a new file needs no list to edit.

    kinds("language")             -> ("bert", "clip", "llama", "t5")      file names, without importing them
    load_kind("language", "t5")   -> the component class of language/t5.py, imported on demand
    detect_kind("language", path) -> "t5", the family that accepts the model at that path
    kinds("evaluation.metrics")                                           a sub-package

Other distributions add kinds through the entry-point groups ``lavibridge.language``, ``lavibridge.vision``
and ``lavibridge.connectors``: the name is the kind, the value is the class.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import getmembers, isabstract, isclass
from pathlib import Path
from typing import Any

from lavibridge.core.errors import ModelError, RecipeError, did_you_mean

_PACKAGE = Path(__file__).parent.parent
_NOT_KINDS = ("base", "hf")
_MADE_BY = ("abc", "torch")
"""Packages that create classes at run time, such as FSDP2's class of a module with sharded weights."""


@cache
def kinds(package: str) -> tuple[str, ...]:
    """Return the kinds of a package, sorted."""
    folder = _PACKAGE.joinpath(*package.split("."))
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    return tuple(sorted((files - set(_NOT_KINDS)) | set(_outside(package))))


def load_kind(package: str, kind: str) -> type[Any]:
    """Return the component class of a kind. Raises RecipeError for an unknown kind."""
    known = kinds(package)
    if kind not in known:
        raise RecipeError(
            f"{package}: unknown kind '{kind}'{did_you_mean(kind, known)} (choose from {', '.join(known)})"
        )
    outside = _outside(package)
    if kind in outside:
        return outside[kind].load()
    base = import_module(f"lavibridge.{package}.base")
    module = import_module(f"lavibridge.{package}.{kind}")
    contracts = tuple(value for _, value in getmembers(base, isclass) if isabstract(value))
    found = [
        value
        for _, value in getmembers(module, isclass)
        if value.__module__ == module.__name__ and issubclass(value, contracts) and not isabstract(value)
    ]
    if len(found) != 1:
        raise RecipeError(f"{package}/{kind}.py must hold exactly one component, found {len(found)}")
    return found[0]


def kind_of(package: str, component: object) -> str:
    """Return the kind of a component instance."""
    own = next(one for one in type(component).__mro__ if one.__module__.partition(".")[0] not in _MADE_BY)
    for kind, entry in _outside(package).items():
        if entry.load() is own:
            return kind
    return own.__module__.rpartition(".")[2]


def detect_kind(package: str, source: str, revision: str | None = None) -> str:
    """Return the kind whose family accepts the model at ``source``, without loading weights.

    A family that is a fallback (`is_fallback`) is asked only where no other accepts. Raises ModelError unless
    exactly one family accepts the model.
    """
    families = {kind: load_kind(package, kind) for kind in kinds(package)}
    fallbacks = [kind for kind, family in families.items() if getattr(family, "is_fallback", False)]
    first = [kind for kind in families if kind not in fallbacks]
    fitting = [kind for kind in first if families[kind].accepts(source, revision)]
    fitting = fitting or [kind for kind in fallbacks if families[kind].accepts(source, revision)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ModelError(f"several kinds accept '{source}' ({', '.join(fitting)}): set `kind` to one of them")
    raise ModelError(
        f"no {package} family accepts '{source}': its configuration matches none of "
        f"{', '.join(kinds(package))}; choose another source, or add a file to {package}/"
    )


def detect_kind_of_options(package: str, options: Mapping[str, Any]) -> str:
    """Return the kind of the model that options name: of its configuration, if they name one.

    Raises ModelError as `detect_kind` does.
    """
    config = options.get("config")
    if package != "vision" or config is None:
        return detect_kind(package, str(options["source"]), options.get("revision"))
    return detect_kind(package, str(config))


@cache
def _outside(package: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"lavibridge.{package}")}
