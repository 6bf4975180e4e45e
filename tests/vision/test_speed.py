"""Ways of computing a denoiser that change its speed only."""

import pytest
import torch
from torch import nn

from lavibridge.vision.parts.memory_format import use_contiguous_norms

ROUNDING = 2**-7
"""Of a number in bfloat16, relative."""


@pytest.mark.parametrize(
    ("dtype", "side", "is_reordered"),
    [(torch.bfloat16, 16, True), (torch.bfloat16, 32, False), (torch.float32, 16, False)],
)
def test_only_small_maps_in_bfloat16_are_normalised_in_the_plain_order(
    dtype: torch.dtype, side: int, is_reordered: bool
) -> None:
    norm, orders = nn.GroupNorm(4, 8).to(dtype), []
    x = torch.randn(2, 8, side, side).to(dtype).to(memory_format=torch.channels_last)
    before = norm(x)
    use_contiguous_norms(nn.Sequential(norm))
    norm.register_forward_hook(lambda module, given, made: orders.append(given[0].is_contiguous()))
    after = norm(x)
    assert orders == [is_reordered]
    torch.testing.assert_close(after, before, atol=ROUNDING, rtol=ROUNDING)
    if not is_reordered:
        assert torch.equal(after, before)
