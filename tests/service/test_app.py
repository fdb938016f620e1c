"""The API keeps what its OpenAPI page promises, whatever is sent by whom: no 5xx, no answer of another shape."""

import os
from typing import get_args

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from components.roles import Role

EXAMPLES = int(os.environ.get("LCIA_SCHEMA_EXAMPLES", "3"))
"""Requests per route and caller; few keep the suite short."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schemathesis.serializer("application/zip", "application/zstd")
def binary(_, value):
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture
def server(serve, pending):
    return serve(pending, "serve.rate=1000000/minute", "serve.failure_rate=1000000/minute")


@pytest.mark.parametrize("who", [None, *get_args(Role)])
def test_whatever_is_sent_the_answer_is_as_promised(server, who):
    schema = schemathesis.openapi.from_asgi("/openapi.json", server.client.app)
    headers = {"authorization": f"Bearer {server.tokens[who]}"} if who else {}
    tried = 0
    for found in schema.get_all_operations():

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=found.ok().as_strategy())
        def ask(case):
            nonlocal tried
            tried += 1
            case.validate_response(case.call(headers=headers), checks=CHECKS)

        ask()
    assert tried >= 31
