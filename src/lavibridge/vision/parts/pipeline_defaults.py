"""Reads the prompt length and the instruction that a published pipeline uses by default."""

import inspect
from typing import Any

import diffusers

from lavibridge.core.text_encoders import PipelineTextEncoders


def with_pipeline_defaults(encoders: PipelineTextEncoders, *pipelines: str | None) -> PipelineTextEncoders:
    """Return the text encoders with the length and the instruction that a pipeline's call has as defaults.

    Uses the first class name in ``pipelines`` that diffusers knows. Importing a pipeline takes a second or
    two, so encoders without such an argument are returned unchanged.
    """
    if not any(encoder.has_sequence_length for encoder in encoders.encoders):
        return encoders
    known = (getattr(diffusers, name, None) for name in pipelines if name is not None)
    pipeline = next((each for each in known if each is not None), None)
    if pipeline is None:
        return encoders
    length = _default(pipeline, "max_sequence_length")
    instruction = _default(pipeline, "complex_human_instruction")
    limited = encoders if length is None else encoders.limited(length)
    return limited if not instruction else limited.model_copy(update={"instruction": "\n".join(instruction)})


def _default(pipeline: Any, argument: str) -> Any:
    """Return the default of an argument of the pipeline's call; None if there is no such argument."""
    found = inspect.signature(pipeline.__call__).parameters.get(argument)
    return None if found is None else found.default
