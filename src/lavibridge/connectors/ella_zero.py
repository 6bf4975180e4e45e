"""ELLA's connector with zero-initialised gates: the AdaLN-Zero of its ablations, 73.91 M weights.

    L <- L + g_a(e) attention,   L <- L + g_m(e) MLP       g = W silu(e) + b, zero at first

It scored lower than without gates (70.43 against 72.91 on DPG-Bench). The form of the gates is reconstructed
from the published number of weights.

Hu et al. 2024, arXiv 2403.05135, table 6; Peebles and Xie 2022 (AdaLN-Zero), arXiv 2212.09748.
"""

from lavibridge.connectors.ella import Ella
from lavibridge.connectors.parts.perceiver import GatedPerceiverBlock


class EllaZero(Ella):
    """Takes the options of `ella`."""

    block = GatedPerceiverBlock
