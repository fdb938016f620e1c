"""Routing of requests that nobody answers."""

import pytest
from pydantic import ValidationError

from lcia.operations import routing
from lcia.operations.params import RouteParams, RouteRequest
from lcia.operations.table import OPERATIONS


def test_without_a_champion_the_base_model_answers(fresh):
    value = routing.route(fresh.open(), [RouteRequest(instruction="Do it.")])
    assert (value["version"], value["routes"][0]["group"]) == (None, None)
    assert "no champion yet" in value["routes"][0]["why"]


def test_texts_are_posted_and_change_nothing():
    operation = OPERATIONS["route"]
    assert (operation.method, operation.changes) == ("POST", False)
    assert {each.method for each in OPERATIONS.values() if each.changes} == {"POST"}


@pytest.mark.parametrize("requests", [[], [{"instruction": ""}], [{"instruction": "a", "text": "b"}], [{"input": "a"}]])
def test_what_is_no_request_is_refused(requests):
    with pytest.raises(ValidationError):
        RouteParams.model_validate({"requests": requests})


def test_a_version_says_where_requests_go_and_why(learnt):
    instance = learnt.loop.open()
    instruction = instance.pool(learnt.digests[-1]).groups[0].tasks[0].instructions[0]
    asked = [
        RouteRequest(instruction=instruction, input="anything"),
        RouteRequest(instruction="What is the boiling point of ethanol?"),
    ]
    value = routing.route(instance, asked)
    assert (value["version"], value["digest"]) == (3, learnt.digests[-1])
    own, foreign = value["routes"]
    assert (own["group"], own["exact"]) == ("g1", True)
    assert (foreign["group"], foreign["task"]) == (None, None)
    assert "below the threshold" in foreign["why"]
    assert routing.route(instance, asked, version="1")["version"] == 1


def test_the_service_takes_texts_in_the_body(serve, learnt, tmp_path):
    server = serve(learnt.loop.copy(tmp_path))
    answer = server.ask("auditor", "route", requests=[{"instruction": "Tell me a joke."}])
    assert answer.status_code == 200
    assert answer.json()["routes"][0]["group"] is None
    assert server.client.get("/v1/route").status_code in (401, 405)


def test_nothing_loads_the_base_model(learnt, monkeypatch):
    from components.model import workbench

    monkeypatch.setattr(workbench.Workbench, "load", None)
    routing.route(learnt.loop.open(), [RouteRequest(instruction="Tell me a joke.")])
