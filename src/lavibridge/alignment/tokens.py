"""`tokens`: compares the student's tokens with the teacher's one by one, and the pooled vectors.

It calls no denoiser and needs the least memory. The connector must make as many tokens as the teacher's text
encoder. The denoiser has no influence: an error that attention would ignore counts as much as one that
changes the image.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.alignment.base import AlignmentObjective, NoisedLatents
from lavibridge.alignment.parts.variance import unexplained
from lavibridge.bridge import Bridge
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.vision.base import VisionModel


class Tokens(AlignmentObjective):
    """Compares conditioning tokens place by place."""

    class Config(AlignmentObjective.Config):
        """Has no options of its own."""

    config: Config
    needs_latents = False
    compares_places = True

    @classmethod
    def refusal(
        cls, connector: type[Connector], config: Connector.Config, vision: type[VisionModel]
    ) -> str | None:
        """Refuse connectors without a fixed number of tokens."""
        if connector.fixed_tokens(config) is None:
            return (
                "it compares tokens one by one, but this connector makes as many as the language model "
                "reads: use a connector with a fixed number of tokens, such as 'resampler'"
            )
        return None

    @torch.no_grad()
    def prepare(self, student: Bridge, teacher: Bridge, noised: Sequence[NoisedLatents]) -> None:
        """Check that student and teacher make the same, fixed number of tokens. Raises ModelError if not."""
        super().prepare(student, teacher, noised)
        mask = teacher.condition(["", "a caption of more tokens than the first"], self.t[:2]).mask
        places = mask.shape[1] if bool(mask.all()) else None
        check_places(type(student.connector), student.connector.config, teacher.vision.config.source, places)

    def fractions(
        self,
        vision: VisionModel,
        conditioning: Conditioning,
        target: Conditioning,
        chosen: Int[Tensor, " caption"],
    ) -> list[Float[Tensor, ""]]:
        """Return the fvu of all tokens together."""
        return [unexplained(conditioning.tokens, target.tokens, over=(0,))]


def check_places(
    connector: type[Connector], config: Connector.Config, source: str, places: int | None
) -> None:
    """Raise ModelError unless a connector makes as many tokens as the teacher gives every prompt.

    ``config`` holds the connector's options. ``places`` is the teacher's number, or None if it depends on the
    prompt. ``source`` names the teacher's vision model.
    """
    if places is None:
        raise ModelError(
            f"training.align.match is tokens, but the text encoder of '{source}' masks its padding, so "
            "prompts have different numbers of tokens: use match attention, blocks or prediction"
        )
    fixed = connector.fixed_tokens(config)
    assert fixed is not None  # refusal() ensures it
    option, made = fixed
    if made != places:
        raise ModelError(
            f"training.align.match is tokens, but the connector makes {made} tokens and the text encoder "
            f"of '{source}' makes {places}: set connector.{option}={places}"
        )
