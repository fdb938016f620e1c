"""Refusals of requests: the field, what was seen of it, what was expected; never a text."""

import pytest
from pydantic import ValidationError

from lcia.gateway.shapes import ChatRequest, RequestRefused

TURN = {"role": "user", "content": "secret"}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"n": 17}, "n", "n: Input should be less than or equal to 16, got 17"),
        ({"temperature": -1}, "temperature", "temperature: Input should be greater than or equal to 0, got -1"),
        ({"max_tokens": 10**400}, "max_tokens", "max_tokens: Input should be less than 2147483648, got 1000"),
        ({"echo": True}, "echo", "echo: the gateway can't do echo; leave it out"),
        ({"top_k": 3}, "top_k", "top_k: the gateway knows no such field; leave it out"),
        ({"stop": ["secret"] * 5}, "stop", "stop: List should have at most 4 items after validation, not 5"),
        ({"stop": "secret" * 50}, "stop", "stop: String should have at most 256 characters"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages",
            "messages.0.content: Input should be a valid string, got None; messages.0.content: Input should be",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages",
            "messages.0.content.0: Input tag 'input_audio'",
        ),
    ],
)
def test_a_refusal_names_the_field_and_what_was_expected(fields, param, message):
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({"model": "assistant", "messages": [TURN], **fields})
    refusal = RequestRefused.of(caught.value)
    assert refusal.param == param
    assert message in str(refusal)
    assert "secret" not in str(refusal)
    assert len(str(refusal)) < 600
