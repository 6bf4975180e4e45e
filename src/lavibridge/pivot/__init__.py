"""The pivot: language models and vision models share one space, so that every pair generates images.

    language model -> language half -> Z -> vision half -> vision model         N + M halves, N x M bridges

`folder.py` and `half.py` read and write the files, `fingerprint.py` distinguishes models, and `compose.py`
joins two halves. `training/pivot` trains halves.
"""

from lavibridge.pivot.compose import compose

__all__ = ["compose"]
