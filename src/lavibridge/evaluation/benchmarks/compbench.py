"""Parses T2I-CompBench's prompts: with closed word lists, or from a file of another parser's output.

For parity with the published script, the file holds spaCy's output by prompt:

    {"The red hat was on top of the brown coat rack.":
        {"phrases": ["The red hat", "the brown coat rack"], "objects": ["hat", "coat"],
         "without_adjectives": "The hat was on top of the coat rack ."}}
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from lavibridge.core.config import Config, validate_config
from lavibridge.core.errors import DataError, RecipeError
from lavibridge.core.files import read_json
from lavibridge.evaluation.benchmarks.numeracy import ObjectCounts, read_numeracy_counts
from lavibridge.evaluation.benchmarks.phrases import noun_phrases, phrases_without_adjectives
from lavibridge.evaluation.benchmarks.prompt_metadata import ComplexMetadata, PhrasesMetadata
from lavibridge.evaluation.benchmarks.spatial import SpatialRelation, read_spatial_relation


class CompBenchParse(Config):
    """Another parser's output for a prompt; overrides the closed word lists."""

    phrases: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The noun phrases."""
    objects: tuple[str, str] | None = None
    """The two objects of the relation."""
    without_adjectives: str | None = None
    """The prompt without adjectives."""


def load_compbench_parses(path: Path) -> dict[str, CompBenchParse]:
    """The parses in a JSON file, by prompt. Raises DataError if it is invalid."""
    found = read_json(path)
    if not isinstance(found, dict) or any(not isinstance(each, dict) for each in found.values()):
        raise DataError(f"{path} must hold an object of objects by prompt")
    try:
        return {
            prompt: validate_config(CompBenchParse, each, f"'{prompt[:60]}'")
            for prompt, each in found.items()
        }
    except RecipeError as error:
        raise DataError(f"{path}: {error}") from None


def read_compbench_phrases(prompt: str, parse: CompBenchParse) -> PhrasesMetadata:
    """The noun phrases that an image must show. Raises ValueError if there are none."""
    found = parse.phrases or noun_phrases(prompt)
    if not found:
        raise ValueError("holds no noun phrase; a file of `parses` can provide some")
    return PhrasesMetadata(phrases=found)


def require_compbench_relation(prompt: str, parse: CompBenchParse) -> SpatialRelation:
    """The relation that the prompt states. Raises ValueError if there is none."""
    found = read_spatial_relation(prompt)
    if found is None:
        raise ValueError("states no relation, such as 'on the left of', between two objects")
    if parse.objects is None:
        return found
    return replace(found, first=parse.objects[0], second=parse.objects[1])


def require_compbench_counts(prompt: str, things: Mapping[str, str]) -> ObjectCounts:
    """The required counts of objects. Raises ValueError if there are none."""
    found = read_numeracy_counts(prompt, things)
    if not found.things:
        raise ValueError("counts nothing that new_objects.txt lists")
    return found


def read_compbench_complex(
    prompt: str, parse: CompBenchParse, spatial: Set[str], action: Set[str]
) -> ComplexMetadata:
    """The metadata of a complex prompt, given the sets of purely spatial and purely action prompts."""
    related = read_spatial_relation(prompt) is not None
    return ComplexMetadata(
        phrases=read_compbench_phrases(prompt, parse).phrases,
        relation=require_compbench_relation(prompt, parse) if related else None,
        bare=parse.without_adjectives or phrases_without_adjectives(prompt),
        is_spatial=compbench_key(prompt) in spatial or compbench_key(prompt) not in action,
        is_action=compbench_key(prompt) not in spatial,
    )


def compbench_key(prompt: str) -> str:
    """Normalise a prompt for lookup in the complex lists: lower case, up to the first full stop."""
    return prompt.split(".")[0].strip().lower()
