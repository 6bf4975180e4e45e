"""DPM-Solver++ of second order over the noise levels of EDM, which other programs call DPM++ 2M Karras.

    s_i = (s_max^(1/7) + i / (N - 1) (s_min^(1/7) - s_max^(1/7)))^7         s = sigma / alpha

More of the steps have little noise than with even times. It is the sampler of Playground v2.5's pipeline.

Lu et al. 2022, arXiv 2211.01095; the noise levels: Karras et al. 2022, arXiv 2206.00364.
"""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.generation.samplers.base import Sampler


class DPMKarras(Sampler):
    """A multistep solver of the diffusion ODE."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Make DPM-Solver++ over the noise levels of EDM."""
        return diffusers.DPMSolverMultistepScheduler(**noise, use_karras_sigmas=True)
