"""The table of operations: each function takes what its parameters are."""

import inspect

import pytest

from components.identity.access import TABLE
from lcia.operations.table import OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_function_takes_exactly_the_fields_of_its_parameters(name: str) -> None:
    operation = OPERATIONS[name]
    fields = operation.params.model_fields
    assert set(inspect.signature(operation.function).parameters) - {"instance", "actor"} == set(fields)


@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_changes_something_knows_who_does_it(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation.name == name
    assert operation.summary
    assert not operation.changes or "actor" in inspect.signature(operation.function).parameters


def test_every_permission_is_one_that_roles_can_have() -> None:
    assert {operation.permission for operation in OPERATIONS.values()} <= TABLE.keys()
