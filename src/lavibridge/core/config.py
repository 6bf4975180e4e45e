"""The base of every configuration: strict, frozen, with errors that name the wrong key and suggest the right
one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.core.seeds import MAX_SEED


class Config(BaseModel):
    """A frozen configuration that rejects unknown keys; field docstrings serve as descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
"""A seed in a configuration."""


@dataclass(frozen=True)
class _ChangeableOnResume:
    """Marks a field of a recipe."""


CHANGEABLE: Final = _ChangeableOnResume()
T = TypeVar("T")
Changeable = Annotated[T, CHANGEABLE]
"""A field whose value may differ between the sessions of a run, as in ``steps: Changeable[int]``."""
_CONTAINERS = (Mapping, list, tuple)
ConfigT = TypeVar("ConfigT", bound=Config)


HIDDEN_INPUT = "hidden_input"
"""Type of a PydanticCustomError whose message must not repeat the value, which may be a secret."""


def validate_config(model: type[ConfigT], mapping: Mapping[str, Any], where: str) -> ConfigT:
    """Validate a mapping as ``model``; ``where`` is the mapping's dotted path (may be empty).

    Raises RecipeError naming every wrong key by its dotted path, its value, and the likely key.
    """
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as error:
        lines = [_explain(model, dict(item), where) for item in error.errors(include_url=False)]
        raise RecipeError("\n".join(lines)) from None


def _explain(model: type[BaseModel], item: Mapping[str, Any], where: str) -> str:
    location = tuple(str(part) for part in item["loc"])
    path = ".".join(part for part in (where, *location) if part) or "the recipe"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        listed = f" (known keys: {', '.join(known)})" if known else ""
        return f"{path}: unknown key{did_you_mean(location[-1], known)}{listed}"
    if item["type"] == "missing":
        return f"{path}: this required key is missing"
    if item["type"] == HIDDEN_INPUT:
        return f"{path}: {item['msg']}"
    message = str(item["msg"]).removeprefix("Value error, ")
    text = f"{path}: {message[:1].lower() + message[1:]}, found {item['input']!r}"
    is_turned = item["type"] in ("string_type", "path_type") and not isinstance(item["input"], _CONTAINERS)
    return f"{text}; in YAML, quote what should stay text: '...'" if is_turned else text


def _fields_at(model: type[BaseModel], path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the field names of the configuration at ``path`` below ``model``."""
    for part in path:
        field = model.model_fields.get(part)
        nested = _nested(field.annotation) if field is not None else None
        if nested is None:
            return ()
        model = nested
    return tuple(model.model_fields)


def _nested(annotation: Any) -> type[BaseModel] | None:
    """Return the configuration class in an annotation such as ``Config`` or ``Config | None``."""
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None
