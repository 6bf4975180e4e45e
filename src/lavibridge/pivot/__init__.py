"""The pivot: language models and vision models that meet in one space, so that every pair draws at once.

    language model -> language half -> Z -> vision half -> vision model         N + M halves, N x M bridges

`folder.py` and `half.py` say what lies on disk, `fingerprint.py` what tells one model from another, and
`compose.py` puts two halves together. How halves learn: `training/pivot`.
"""

from lavibridge.pivot.compose import compose

__all__ = ["compose"]
