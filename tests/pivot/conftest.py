"""A pivot of toys."""

import shutil
from pathlib import Path

import pytest
from toy_pivot import make_pivot

from lavibridge.pivot.folder import PivotFolder, read_pivot


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two toys on each side, each named by its kind; nobody changes the folder."""
    return make_pivot(tmp_path_factory.mktemp("written") / "pivot", "first").folder


@pytest.fixture
def pivot(written: Path, tmp_path: Path) -> PivotFolder:
    """A copy of that pivot, which a test may change."""
    return read_pivot(shutil.copytree(written, tmp_path / "pivot"))
