"""Reads a file of prompts: a text file with one prompt per line, or JSON Lines with settings of each prompt.

a red circle                                                                        prompts.txt
{"prompt": "a red circle", "negative_prompt": "blue", "seed": 7, "width": 96}       prompts.jsonl
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from lavibridge.core.config import Config, Seed, validate_config
from lavibridge.core.errors import LaviError, RecipeError
from lavibridge.core.files import parse_json

JSON_LINES = ".jsonl"
"""The ending of files in which each line is an object."""
LARGEST_PROMPT_FILE = 2**24
"""Bytes."""


class RequestedPrompt(Config):
    """A prompt, with the settings that its line of a file has; None where the line leaves one open."""

    prompt: Annotated[str, StringConstraints(min_length=1)]
    """The text to generate from."""
    negative_prompt: str | None = None
    """What the image should not show."""
    seed: Seed | None = None
    """Seed of the first image of this prompt."""
    height: int | None = Field(default=None, ge=1)
    """Height in pixels."""
    width: int | None = Field(default=None, ge=1)
    """Width in pixels."""
    guidance_scale: float | None = Field(default=None, ge=0)
    """Scale of classifier-free guidance."""


def read_prompt_file(path: Path) -> list[RequestedPrompt]:
    """Return the prompts of a UTF-8 file in order; blank lines do not count.

    Raises RecipeError, naming the file and the line, for a file that is missing, too large or without a
    prompt, and for a line of JSON Lines that is no object with these fields.
    """
    try:
        if path.stat().st_size > LARGEST_PROMPT_FILE:
            raise RecipeError(
                f"{path} has {path.stat().st_size:,} bytes, and a file of prompts has at most "
                f"{LARGEST_PROMPT_FILE:,}: split it"
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path} does not exist: name a text file with one prompt per line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not a text file in UTF-8: {error}") from None
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not numbered:
        raise RecipeError(f"{path} has no prompt: write one per line")
    if path.suffix == JSON_LINES:
        return [_from_json(line, f"{path}, line {number}") for number, line in numbered]
    return [RequestedPrompt(prompt=line.strip()) for _, line in numbered]


def read_plain_prompts(path: Path) -> tuple[str, ...]:
    """Return the texts of a file of prompts, whose lines may have no settings of their own.

    Raises RecipeError as `read_prompt_file` does, and for a line with settings.
    """
    read = read_prompt_file(path)
    for each in read:
        settings = sorted(each.model_dump(exclude={"prompt"}, exclude_none=True))
        if settings:
            raise RecipeError(
                f"{path} has {', '.join(settings)} for '{each.prompt}', but these images share all settings: "
                "leave the prompts alone in the file"
            )
    return tuple(each.prompt for each in read)


def _from_json(line: str, where: str) -> RequestedPrompt:
    try:
        found = parse_json(line, where)
    except LaviError as error:
        raise RecipeError(str(error)) from None
    if not isinstance(found, dict):
        raise RecipeError(
            f'{where}: should hold an object such as {{"prompt": "a red circle"}}, found {line[:60]!r}'
        )
    return validate_config(RequestedPrompt, found, where)
