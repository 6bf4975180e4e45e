"""AdamW with both moments in 8 bits, a scale for each block of 256 values (extra `quantize`).

Dettmers et al. 2021, arXiv 2110.02861.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from lavibridge.core.errors import RecipeError
from lavibridge.optimizers.base import OptimizerFactory


class AdamW8bitFactory(OptimizerFactory):
    """The implementation of bitsandbytes."""

    state_bytes = 2.03

    @classmethod
    def check_installed(cls) -> None:
        if find_spec("bitsandbytes") is None:
            raise RecipeError(
                "training.optimizer: adamw8bit needs bitsandbytes, which is not installed: "
                "pip install 'lavibridge[quantize]'; or choose adamw"
            )

    def build(self, groups: Sequence[Mapping[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
        self.check_installed()
        library = import_module("bitsandbytes")
        optimizer: torch.optim.Optimizer = library.optim.AdamW8bit(
            [dict(group) for group in groups], weight_decay=weight_decay
        )
        return optimizer
