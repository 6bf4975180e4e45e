"""A file of tests runs in one process, where what they share is made once; the matrix by vision family."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test's group for `--dist loadgroup`."""
    for item in items:
        call = getattr(item, "callspec", None)
        part = f"-{call.params['vision']}" if item.path.parent.name == "matrix" and call else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name}{part}"))
