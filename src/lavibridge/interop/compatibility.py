"""Checks that published weights fit between two models, before loading them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError
from lavibridge.core.tensors import check_tensors_fit


def check_width_compatibility(bridge: Bridge, text_width: int, context: int, path: Path) -> None:
    """Raise ModelError if published weights connect models of other widths."""
    language, vision = bridge.language, bridge.vision
    if (language.spec.width, vision.spec.context) != (text_width, context):
        raise ModelError(
            f"{path} maps text features of width {text_width} to conditioning of width {context}, but "
            f"'{language.config.source}' has width {language.spec.width} and '{vision.config.source}' takes "
            f"width {vision.spec.context}: choose the two models that it was trained with"
        )


def load_compatible_weights(connector: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the connector's weights. Raises ModelError unless all names and shapes match."""
    wide = {name: value.float() for name, value in weights.items()}
    check_tensors_fit(connector.state_dict(), wide, f"the connector in {path}")
    connector.load_state_dict(wide)
