"""A pivot of toys."""

from pathlib import Path

import pytest
from toy_pivot import make_pivot

from lavibridge.pivot.folder import PivotFolder


@pytest.fixture
def pivot(tmp_path: Path) -> PivotFolder:
    """Two toys on each side, each named by its kind."""
    return make_pivot(tmp_path / "pivot", "first")
