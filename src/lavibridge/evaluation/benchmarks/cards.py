"""Cards of metrics that ask networks: an option that names one gives way to the network's own card."""

from collections.abc import Mapping
from typing import Any

from lavibridge.evaluation.networks import PretrainedNetwork


def with_networks(card: Mapping[str, Any], networks: Mapping[str, PretrainedNetwork]) -> dict[str, Any]:
    """The card with what each network is (hash or commit) in place of where it lies on this machine."""
    options = {name: value for name, value in card["options"].items() if name not in networks}
    return {**card, "options": options, **{name: network.card() for name, network in networks.items()}}
