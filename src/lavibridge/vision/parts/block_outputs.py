"""Records the image stream after each transformer block of a denoiser.

    U-Net, PixArt, SANA    a block returns the image stream (batch, image token, width)
    SD3, FLUX              a block returns (text stream, image stream)

Where a block returns text and image tokens in one sequence, the image tokens come last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lavibridge.vision.parts.attention_backend import repeated_blocks


@contextmanager
def record_block_outputs(
    denoiser: nn.Module, image_tokens: int | None
) -> Iterator[dict[str, list[Float[Tensor, "batch token width"]]]]:
    """Collect each block's output by name, one entry for each call of the denoiser.

    ``image_tokens`` is the number of image tokens of joint sequences; None keeps every token.
    """
    recorded: dict[str, list[Tensor]] = {}
    hooks = []

    def recorder(name: str) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            image = output[-1] if isinstance(output, tuple) else output
            recorded.setdefault(name, []).append(image if image_tokens is None else image[:, -image_tokens:])

        return record

    try:
        for name, block in repeated_blocks(denoiser):
            hooks.append(block.register_forward_hook(recorder(name)))
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()
