"""The Inception-v3 that defines FID: the 2015 TensorFlow graph with its peculiarities.

    299 x 299 -> stem 192 x 35 x 35 -> A A A -> B 768 x 17 x 17 -> C C C C -> D 1280 x 8 x 8 -> E E -> 2048

Average pools do not count the padding, and the last block has a maximum pool instead (Szegedy et al. 2015,
arXiv 1512.00567; Heusel et al. 2017, arXiv 1706.08500). Names follow pytorch-fid's checkpoint
`pt_inception-2015-12-05-6726825d.pth`, without its classifier `fc`.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.core.safetensors_file import load_tensors
from lavibridge.core.tensors import check_tensors_fit

INCEPTION_SIDE = 299
INCEPTION_WIDTH = 2048
FeatureMaps = Float[Tensor, "batch channel height width"]
BlockOutput = Float[Tensor, "batch _ _ _"]
KernelSize = int | tuple[int, int]
ConvolutionStep = tuple[int, KernelSize] | tuple[int, KernelSize, int]
"""Output channels, kernel, and stride if it is not 1."""
_WIDE, _HIGH, _BOTH = (1, 7), (7, 1), (0, 0)
"""BOTH means parallel (1, 3) and (3, 1) convolutions, named `a` and `b`."""


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU; `pads` keeps height and width."""

    def __init__(
        self, before: int, after: int, kernel: KernelSize, stride: int = 1, pads: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pads else (0, 0)
        self.conv = nn.Conv2d(before, after, sides, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: FeatureMaps) -> BlockOutput:
        """Apply the block."""
        return functional.relu(self.bn(self.conv(x)))


class InceptionMixed(nn.Module):
    """Parallel branches and a pool, concatenated by channel."""

    def __init__(
        self,
        before: int,
        branches: dict[str, list[ConvolutionStep]],
        pooled: int | None,
        highest: bool = False,
    ) -> None:
        """A branch of one step has the branch's name, longer ones number their steps; `pooled=None` halves
        the size."""
        super().__init__()
        self.chains = [self._chain(name, before, steps) for name, steps in branches.items()]
        self.pooled, self.highest = pooled, highest
        if pooled is not None:
            self.branch_pool = _Conv(before, pooled, 1)

    def forward(self, x: FeatureMaps) -> BlockOutput:
        """Apply the block."""
        found = []
        for chain in self.chains:
            y = x
            for names in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in names], dim=1)
            found.append(y)
        return torch.cat([*found, self._pool(x)], dim=1)

    def _pool(self, x: FeatureMaps) -> BlockOutput:
        if self.pooled is None:
            return functional.max_pool2d(x, 3, stride=2)
        if self.highest:
            return self.branch_pool(functional.max_pool2d(x, 3, stride=1, padding=1))
        return self.branch_pool(functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))

    def _chain(self, branch: str, before: int, steps: list[ConvolutionStep]) -> list[tuple[str, ...]]:
        """Add a branch's convolutions and return their names, two for parallel ones."""
        chain: list[tuple[str, ...]] = []
        for number, (after, kernel, *rest) in enumerate(steps, start=1):
            stride = rest[0] if rest else 1
            name = branch if len(steps) == 1 else f"{branch}_{number}"
            if kernel == _BOTH:
                self.add_module(f"{name}a", _Conv(before, after, (1, 3)))
                self.add_module(f"{name}b", _Conv(before, after, (3, 1)))
                chain.append((f"{name}a", f"{name}b"))
            else:
                self.add_module(name, _Conv(before, after, kernel, stride, pads=stride == 1))
                chain.append((name,))
            before = after
        return chain


def _block_a(before: int, pooled: int) -> InceptionMixed:
    """A block at 35 x 35."""
    branches: dict[str, list[ConvolutionStep]] = {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    }
    return InceptionMixed(before, branches, pooled)


def _block_c(width: int) -> InceptionMixed:
    """A block at 17 x 17."""
    branches: dict[str, list[ConvolutionStep]] = {
        "branch1x1": [(192, 1)],
        "branch7x7": [(width, 1), (width, _WIDE), (192, _HIGH)],
        "branch7x7dbl": [(width, 1), (width, _HIGH), (width, _WIDE), (width, _HIGH), (192, _WIDE)],
    }
    return InceptionMixed(768, branches, 192)


def _block_e(before: int, highest: bool) -> InceptionMixed:
    """A block at 8 x 8."""
    branches: dict[str, list[ConvolutionStep]] = {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1), (384, _BOTH)],
        "branch3x3dbl": [(448, 1), (384, 3), (384, _BOTH)],
    }
    return InceptionMixed(before, branches, 192, highest)


class InceptionV3(nn.Module):
    """Maps pictures of 299 x 299 in [-1, 1] to 2048 features."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2, pads=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, pads=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, pads=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = InceptionMixed(
            288, {"branch3x3": [(384, 3, 2)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)]}, None
        )
        self.Mixed_6b, self.Mixed_6c = _block_c(128), _block_c(160)
        self.Mixed_6d, self.Mixed_6e = _block_c(160), _block_c(192)
        halving: dict[str, list[ConvolutionStep]] = {
            "branch3x3": [(192, 1), (320, 3, 2)],
            "branch7x7x3": [(192, 1), (192, _WIDE), (192, _HIGH), (192, 3, 2)],
        }
        self.Mixed_7a = InceptionMixed(768, halving, None)
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, highest=False), _block_e(2048, highest=True)

    def forward(self, pictures: Float[Tensor, "batch 3 299 299"]) -> Float[Tensor, "batch 2048"]:
        """The spatial mean of the last block."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pictures)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))


def load_inception(path: Path) -> InceptionV3:
    """The network with weights from a safetensors file. Raises ModelError if they do not fit."""
    weights = load_tensors(path)
    with torch.device("meta"):
        network = InceptionV3()
    own = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    weights = {name: value.float() for name, value in weights.items() if name in own or not _is_unused(name)}
    check_tensors_fit(own, weights, str(path))
    network.load_state_dict(weights, strict=False, assign=True)
    return network.requires_grad_(False).eval()


def _is_unused(name: str) -> bool:
    return name.startswith(("fc.", "AuxLogits.")) or name.endswith("num_batches_tracked")
