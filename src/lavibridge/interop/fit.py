"""Whether published weights fit between two models, said before they are used."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError


def check_widths(bridge: Bridge, text_width: int, context: int, path: Path) -> None:
    """Raise ModelError where published weights were trained between models of other widths."""
    language, vision = bridge.language, bridge.vision
    if (language.spec.width, vision.spec.context) != (text_width, context):
        raise ModelError(
            f"{path} connects text features {text_width} wide with conditioning {context} wide, but "
            f"'{language.config.source}' gives {language.spec.width} and '{vision.config.source}' takes "
            f"{vision.spec.context}: give the two models that it was trained with"
        )


def load_exactly(connector: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights whose names and shapes must all be the connector's."""
    own = connector.state_dict()
    odd = sorted(own.keys() ^ weights.keys())
    if odd:
        raise ModelError(
            f"{path} does not hold this connector: {len(own)} weights are needed, {len(weights)} found; the "
            f"first that differ: {', '.join(odd[:3])}"
        )
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise ModelError(
                f"{path} does not fit between these models: {name} is {tuple(weights[name].shape)} in the "
                f"file and has to be {tuple(value.shape)} here"
            )
    connector.load_state_dict({name: value.float() for name, value in weights.items()})
