"""Records the image stream after each transformer block of a denoiser.

    U-Net, PixArt, SANA    a block returns the image stream (batch, image token, width)
    SD3, FLUX              a block returns (text stream, image stream)
    others                 a block returns text and image tokens in one sequence

Text precedes the image, or follows it (``is_image_first``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lavibridge.vision.parts.attention_backend import repeated_blocks


@contextmanager
def record_block_outputs(
    denoiser: nn.Module, lists: str, image_tokens: int | None, is_image_first: bool = False
) -> Iterator[dict[str, list[Float[Tensor, "batch token width"]]]]:
    """Collect each block's output by name, one entry for each call of the denoiser.

    The blocks are the elements of the module lists whose names end with ``lists``. ``image_tokens`` is the
    number of image tokens of joint sequences; None keeps every token.
    """
    recorded: dict[str, list[Tensor]] = {}
    hooks = []
    chosen = slice(None)
    if image_tokens is not None:
        chosen = slice(image_tokens) if is_image_first else slice(-image_tokens, None)

    def recorder(name: str) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            image = output[0 if is_image_first else -1] if isinstance(output, tuple) else output
            recorded.setdefault(name, []).append(image[:, chosen])

        return record

    try:
        for name, block in repeated_blocks(denoiser, lists):
            hooks.append(block.register_forward_hook(recorder(name)))
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()
