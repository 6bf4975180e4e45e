"""Cards of metrics with networks: the network's own card replaces the option that names it."""

from collections.abc import Mapping
from typing import Any

from lavibridge.evaluation.networks import PretrainedNetwork


def card_with_networks(card: Mapping[str, Any], networks: Mapping[str, PretrainedNetwork]) -> dict[str, Any]:
    """The card with each network's identity (hash or commit) in place of its local path."""
    options = {name: value for name, value in card["options"].items() if name not in networks}
    return {**card, "options": options, **{name: network.card() for name, network in networks.items()}}
