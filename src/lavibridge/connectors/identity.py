"""No connector: the features go straight in, as between a vision model and its own text encoder.

y = x
"""

from jaxtyping import Int
from torch import Tensor, nn

from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import Conditioning, TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError


class Identity(Connector):
    """Nothing is trained here; both widths must agree."""

    class Config(Connector.Config):
        """No options."""

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        nn.Module.__init__(self)
        if text.width != vision.context:
            raise ModelError(
                f"the identity connector joins equal widths, found text features {text.width} wide and a "
                f"vision model that takes {vision.context}: use the connector 'lavi'"
            )
        self.config = config

    def forward(self, features: TextFeatures, t: Int[Tensor, " batch"] | None = None) -> Conditioning:
        """The features as conditioning."""
        return Conditioning(tokens=features.hidden[:, -1], mask=features.mask, pooled=features.pooled)
