"""What a published pipeline does with prompts when its caller leaves an argument out."""

import inspect
from typing import Any

import diffusers

from lavibridge.core.text_sides import TextSide


def with_pipeline_defaults(side: TextSide, *pipelines: str | None) -> TextSide:
    """A text side with the length and the instruction that are defaults of a pipeline's call.

    The first of ``pipelines``, names of classes, that diffusers has decides. Importing one takes a second or
    two, so a side without such an argument is returned as it is.
    """
    if not any(encoder.has_sequence_length for encoder in side.encoders):
        return side
    known = (getattr(diffusers, name, None) for name in pipelines if name is not None)
    pipeline = next((each for each in known if each is not None), None)
    if pipeline is None:
        return side
    length = _default(pipeline, "max_sequence_length")
    instruction = _default(pipeline, "complex_human_instruction")
    limited = side if length is None else side.limited(length)
    return limited if not instruction else limited.model_copy(update={"instruction": "\n".join(instruction)})


def _default(pipeline: Any, argument: str) -> Any:
    """The default of an argument of the pipeline's call; None where it has no such argument."""
    found = inspect.signature(pipeline.__call__).parameters.get(argument)
    return None if found is None else found.default
