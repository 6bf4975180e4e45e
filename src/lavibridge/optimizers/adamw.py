"""AdamW: Adam with decoupled weight decay.

Loshchilov and Hutter 2017, arXiv 1711.05101.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lavibridge.optimizers.base import OptimizerFactory


class AdamWFactory(OptimizerFactory):
    """PyTorch's AdamW, fused if the device has a fused kernel."""

    state_bytes = 8.0

    def build(self, groups: Sequence[Mapping[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
        devices = {parameter.device.type for group in groups for parameter in group["params"]}
        # One kernel for hundreds of small LoRA matrices, instead of a loop over them in Python.
        return torch.optim.AdamW(
            [dict(group) for group in groups], weight_decay=weight_decay, fused=devices <= {"cpu", "cuda"}
        )
