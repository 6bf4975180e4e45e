"""A file of tests runs in one process, where what they share is made once; the matrix by vision family.

Folders whose files share a trained or evaluated run go to one process as a whole. Tests that begin processes
of their own (`sessions`) run in one too, and share what these are forked from.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

WHOLE = ("ab", "report", "study")
"""Folders whose session fixtures train and evaluate."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's cache is read or written, by the tests or by the programs that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAVIBRIDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on several, and their bits may depend on the batch there."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


def _chromium() -> Path:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        for folder in ("/usr/bin", "/usr/local/bin", "/snap/bin"):
            if (Path(folder) / name).is_file():
                return Path(folder) / name
    pytest.skip("no Chromium here: install it (Debian: apt-get install chromium), then run again")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test's group for `--dist loadgroup`."""
    for item in items:
        call, folder = getattr(item, "callspec", None), item.path.parent.name
        part = f"-{call.params['vision']}" if folder == "matrix" and call else ""
        name = folder if folder in WHOLE else f"{item.path.name}{part}"
        group = "sessions" if "sessions" in getattr(item, "fixturenames", ()) else name
        item.add_marker(pytest.mark.xdist_group(group))
