"""Which trained weights get no gradient is known before several processes wait for it."""

import pytest
import torch

from lavibridge import Bridge
from lavibridge.core import registry
from lavibridge.training.distributed.processes import has_idle_lora

CASES = [
    *((language, {"layer": 1}) for language in registry.kinds("language")),
    *(("llama", read) for read in ({"layer": -2}, "last", "mean")),
]


@pytest.mark.parametrize(("language", "read"), CASES)
def test_what_gets_no_gradient_is_known_beforehand(language: str, read: str | dict[str, int]) -> None:
    """LoRA stands above the layer that is read only where it is named; processes then have to know."""
    for targets in (None, registry.load_kind("language", language).lora_targets or ("q_proj",)):
        bridge = Bridge.compose(
            {"kind": language, "source": "random"},
            {"kind": "ldm", "source": "random"},
            {"kind": "linear", "read": read},
            {"rank": 2, "targets": targets},
            None,
        )
        tokens = bridge.condition(("a red cat", "a boat beside a house")).tokens
        (tokens * torch.linspace(0.5, 2.0, tokens.shape[-1])).sum().backward()
        idle = [
            name for name, weight in bridge.named_parameters() if weight.requires_grad and weight.grad is None
        ]
        assert has_idle_lora(bridge) == bool(idle), idle
        assert targets is not None or not idle
