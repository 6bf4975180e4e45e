"""Reads the prompt length, the layers and the instruction that a published pipeline uses by default."""

import inspect
from typing import Any

import diffusers

from lavibridge.core.text_encoders import PipelineTextEncoders


def with_pipeline_defaults(encoders: PipelineTextEncoders, *pipelines: str | None) -> PipelineTextEncoders:
    """Return the text encoders with the length, layers and instruction of a pipeline's call by default.

    Uses the first class name in ``pipelines`` that diffusers knows. Importing a pipeline takes a second or
    two, so encoders without such an argument are returned unchanged.
    """
    if not any(encoder.has_sequence_length for encoder in encoders.encoders):
        return encoders
    known = (getattr(diffusers, name, None) for name in pipelines if name is not None)
    pipeline = next((each for each in known if each is not None), None)
    if pipeline is None:
        return encoders
    found = {
        "max_tokens": _default(pipeline, "max_sequence_length"),
        "layers": _default(pipeline, "text_encoder_out_layers"),
    }
    changed = encoders.with_argument(**{name: value for name, value in found.items() if value is not None})
    instruction = _default(pipeline, "complex_human_instruction")
    return changed if not instruction else changed.model_copy(update={"instruction": "\n".join(instruction)})


def _default(pipeline: Any, argument: str) -> Any:
    """Return the default of an argument of the pipeline's call; None if there is no such argument."""
    found = inspect.signature(pipeline.__call__).parameters.get(argument)
    return None if found is None else found.default
