"""In the number formats that may be trained in, the connector's gradient is that of float32."""

import pytest
import torch
from torch import Tensor

from lavibridge import Bridge
from lavibridge.core.contracts import Batch


def gradient(language: str, vision: str) -> Tensor:
    torch.manual_seed(0)
    bridge = Bridge.compose(
        {"kind": "llama", "source": "random", "dtype": language},
        {"kind": "sd", "source": "random", "dtype": vision},
        "lavi",
        None,
        None,
    ).eval()
    chance = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 4, 8, 8, generator=chance) for _ in range(2))
    batch = Batch(prompts=("a red cat", "a boat"), names=("a", "b"), latents=latents)
    bridge(batch, torch.tensor([200, 800]), noise).mean().backward()
    return torch.cat(
        [weight.grad.flatten() for weight in bridge.connector.parameters() if weight.grad is not None]
    )


@pytest.mark.parametrize(
    ("language", "vision", "most"),
    [("float16", "float32", 0.01), ("float32", "bfloat16", 0.1), ("float16", "bfloat16", 0.1)],
)
def test_gradients_are_those_of_float32(language: str, vision: str, most: float) -> None:
    right, found = gradient("float32", "float32"), gradient(language, vision)
    assert (found - right).norm() < most * right.norm()
