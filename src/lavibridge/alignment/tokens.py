"""`tokens`: the teacher's tokens themselves, one by one, and its pooled vector.

It calls no denoiser and takes the least memory, and it needs a connector that makes as many tokens as the
teacher's text side has places. What the denoiser makes of the tokens has no part in it: an error that
attention would ignore counts as much as one that changes the picture.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.alignment.base import AlignmentObjective, NoisedLatents
from lavibridge.alignment.parts.variance import unexplained
from lavibridge.bridge import Bridge
from lavibridge.connectors.base import Connector
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.vision.base import VisionModel


class Tokens(AlignmentObjective):
    """Compares conditioning tokens place by place."""

    class Config(AlignmentObjective.Config):
        """No options of its own."""

    config: Config
    needs_latents = False
    compares_places = True

    @classmethod
    def refusal(cls, connector: type[Connector], vision: type[VisionModel]) -> str | None:
        """Need a connector with a fixed number of tokens, and a text side without masked padding."""
        if connector.tokens_option is None:
            return (
                "it compares tokens place by place, and this connector makes as many as the language model "
                "reads: take one with a fixed number, such as 'resampler'"
            )
        return None

    @torch.no_grad()
    def prepare(self, student: Bridge, teacher: Bridge, noised: Sequence[NoisedLatents]) -> None:
        """Need as many tokens of the student as the teacher gives every prompt."""
        super().prepare(student, teacher, noised)
        mask = teacher.condition(["", "a caption of more tokens than the first"], self.t[:2]).mask
        places = mask.shape[1] if bool(mask.all()) else None
        check_places(student.connector.config, type(student.connector), teacher.vision.config.source, places)

    def fractions(
        self,
        vision: VisionModel,
        conditioning: Conditioning,
        target: Conditioning,
        chosen: Int[Tensor, " caption"],
    ) -> list[Float[Tensor, ""]]:
        """Return the fvu of all tokens together."""
        return [unexplained(conditioning.tokens, target.tokens, over=(0,))]


def check_places(config: BaseConfig, connector: type[Connector], source: str, places: int | None) -> None:
    """Raise ModelError unless a connector makes as many tokens as the teacher gives every prompt.

    ``config`` holds the connector's options. ``places`` is the teacher's number, or None if it depends on the
    prompt. ``source`` names the teacher's vision model.
    """
    if places is None:
        raise ModelError(
            f"training.align.match is tokens, and the text side of '{source}' masks the padding, so that "
            "prompts have different numbers of tokens: use match attention, blocks or prediction"
        )
    option = str(connector.tokens_option)
    made = int(getattr(config, option))
    if made != places:
        raise ModelError(
            f"training.align.match is tokens, and the connector makes {made} tokens where the text side "
            f"of '{source}' has {places}: set connector.{option}={places}"
        )
