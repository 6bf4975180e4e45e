"""Passes features through unchanged, as between a vision model and its own text encoder.

y = x
"""

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.core.contracts import TextSpec, VisionSpec
from lavibridge.core.errors import ModelError


class Identity(Connector):
    """Has no weights; both widths must agree."""

    class Config(Connector.Config):
        """No options of its own."""

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        if text.width != vision.context:
            raise ModelError(
                f"the identity connector joins equal widths, found text features {text.width} wide and a "
                f"vision model that takes {vision.context}: use the connector 'lavi'"
            )
        super().__init__(config, text, vision)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return the features as conditioning."""
        return x, mask
