"""Whatever the schema allows, and much that it does not, is answered without an error of the server."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.server import make_app_state

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    response_schema_conformance,
]
QUIET = list(hypothesis.HealthCheck)
"""Slow data is no matter here."""


@pytest.fixture(scope="module")
def api(
    models: dict[str, ServedModel],
    running: Callable[..., AbstractContextManager[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """The schema of a server with small limits."""
    limits = Limits(steps=3, count=2, side=16, queue=32, patience=1)
    with running(make_app_state(models, limits, tmp_path_factory.mktemp("runs"), False)) as served:
        yield schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def test_no_request_breaks_the_server(api: Any) -> None:
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) >= 14
    for operation in operations:

        @hypothesis.settings(
            max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=QUIET
        )
        @hypothesis.given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.validate_response(case.call(timeout=60), checks=CHECKS)

        check()
