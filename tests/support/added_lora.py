"""What LoRA files add to a toy: drawn pairs, what they mean by definition, and each weight's gain."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavibridge import Bridge
from lavibridge.core.low_rank import low_rank_shapes, named_layers
from lavibridge.interop.merged_weights import merged_weights

Pairs = dict[str, tuple[Tensor, Tensor]]


@cache
def _built(vision: str) -> tuple[Bridge, dict[str, Tensor]]:
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"},
        {"kind": vision, "source": "random"},
        language_lora=None,
        vision_lora=None,
    ).eval()
    return bridge, {name: value.clone() for name, value in bridge.state_dict().items()}


def toy(vision: str = "sd") -> Bridge:
    """A bridge of toys without LoRA, as new: there is one of each kind."""
    bridge, state = _built(vision)
    bridge.load_state_dict(state)
    bridge.vision.folded, bridge.origin = (), {}
    return bridge


def weights(bridge: Bridge) -> dict[str, Tensor]:
    """The denoiser's weights, all LoRA in them."""
    return merged_weights(bridge.vision.backbone, bridge.is_merged)


def some_pairs(network: nn.Module, ranks: tuple[int, ...] = (3,), every: int = 1) -> Pairs:
    """Drawn (up, down) of every n-th layer, of changing ranks."""
    generator = torch.Generator().manual_seed(4)
    drawn: Pairs = {}
    for index, (name, layer) in enumerate(list(named_layers(network).items())[::every]):
        up, down = low_rank_shapes(layer, ranks[index % len(ranks)])
        drawn[name] = tuple(0.1 * torch.randn(shape, generator=generator) for shape in (up, down))  # type: ignore[assignment]
    return drawn


def assert_added(bridge: Bridge, before: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Every weight has exactly its change, and no other weight has any."""
    after = weights(bridge)
    assert after.keys() == before.keys()
    for name, value in after.items():
        change = wanted.get(name.removesuffix(".weight"), torch.zeros(()))
        assert float((value - before[name] - change).abs().max()) <= 1e-6, name


def deltas(pairs: Pairs, scale: Callable[[str, int], float]) -> dict[str, Tensor]:
    """scale B A, by the definition: for a convolution up after down in each place of the kernel."""
    made = {}
    for name, (up, down) in pairs.items():
        product = torch.einsum("or,r...->o...", up.flatten(1), down)
        made[name] = scale(name, down.shape[0]) * product
    return made


def kohya(name: str) -> str:
    """What kohya's scripts call a layer of the denoiser."""
    return f"lora_unet_{name.replace('.', '_')}"


def write_kohya(
    pairs: Pairs, path: Path, told: dict[str, str], alpha: float | None = None
) -> dict[str, Tensor]:
    """Write pairs as kohya's scripts do, ``told`` in the header, and return what was written."""
    state = {}
    for name, (up, down) in pairs.items():
        state |= {f"{kohya(name)}.lora_up.weight": up, f"{kohya(name)}.lora_down.weight": down}
        if alpha is not None:
            state[f"{kohya(name)}.alpha"] = torch.tensor(alpha)
    save_file(state, path, metadata=told)
    return state
