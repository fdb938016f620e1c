"""Requests to vLLM say everything, and its answers, recorded from release 0.32.0, are read as they are."""

import json
from typing import Any

import pytest

from components.serving import vllm_wire as wire
from components.serving.engine import Job, Sampling, Step

JOB = Job((1, 50, 60), None, 6, (2,))
MODELS = b"""{"object":"list","data":[{"id":"/models/base","object":"model","created":1796050369,"owned_by":"vllm",
"root":"/models/base","parent":null,"max_model_len":512,"permission":[{"id":"modelperm-80fe25f5ec17ee63",
"object":"model_permission","created":1796050369,"allow_create_engine":false,"allow_sampling":true,
"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*",
"group":null,"is_blocking":false}]},{"id":"e427be","object":"model","created":1796050370,"owned_by":"vllm",
"root":"/adapters/e427be","parent":"/models/base","max_model_len":null,"permission":[]}]}"""
FIRST = b"""{"id":"cmpl-badb6d2eb24b2d17","object":"text_completion","created":1796050377,"model":"/models/base",
"choices":[{"index":0,"text":"@","logprobs":null,"finish_reason":null,"stop_reason":null,
"prompt_token_ids":[1,50,60,70,80],"token_ids":[34]}]}"""
LAST = b"""{"id":"cmpl-badb6d2eb24b2d17","object":"text_completion","created":1796050377,"model":"/models/base",
"choices":[{"index":0,"text":"wise","logprobs":null,"finish_reason":"length","stop_reason":null,
"prompt_token_ids":null,"token_ids":[659]}],"system_fingerprint":"vllm-0.32.0-98b7c976"}"""
WITH_LOGPROBS = b"""{"id":"cmpl-a7148652bab4dbe9","object":"text_completion","created":1796050377,
"model":"/models/base","choices":[{"index":0,"text":"@","logprobs":{"text_offset":[0],
"token_logprobs":[-1.1516655683517456],"tokens":["token_id:34"],"top_logprobs":[{"token_id:34":-1.1516655683517456,
"token_id:288":-0.4251469373703003,"token_id:7":-2.5}]},"finish_reason":null,"stop_reason":null,
"prompt_token_ids":[1,50,60,70,80],"token_ids":[34]}]}"""
UNKNOWN = b"""{"error":{"message":"The model `nosuch` does not exist. Valid aliases: <path>","type":"NotFoundError",
"param":"model","code":404}}"""
METRICS = b"""# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="/models/base"} 2.0
vllm:num_requests_waiting{engine="1",model_name="/models/base"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="/models/base",reason="capacity"} 9.0
"""


def event(**choice: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "token_ids": [], "finish_reason": None, **choice}]}).encode()


def test_a_greedy_request_leaves_nothing_to_the_server_s_defaults():
    body = wire.completion(JOB, "base")
    assert body["prompt"] == [1, 50, 60]
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.0, 1.0, 0, 0.0)
    assert (body["repetition_penalty"], body["presence_penalty"], body["frequency_penalty"]) == (1.0, 0.0, 0.0)
    assert (body["ignore_eos"], body["stop_token_ids"], body["max_tokens"]) == (True, [2], 6)
    assert "logprobs" not in body


def test_a_sampled_request_carries_its_own_choices():
    body = wire.completion(Job((1,), "ab", 3, (2,), Sampling(0.7, 0.9, 11), logprobs=4), "ab")
    assert (body["temperature"], body["top_p"], body["seed"], body["logprobs"]) == (0.7, 0.9, 11, 4)


def test_models_are_the_base_and_its_adapters():
    assert wire.served(MODELS) == wire.Served("/models/base", 512, frozenset({"e427be"}))


@pytest.mark.parametrize(
    "content", [b"<html>", b"{}", b'{"data": []}', b'{"data": [{"id": "x", "parent": "y"}]}', b"[" * 9]
)
def test_other_programs_models_are_refused(content):
    with pytest.raises(wire.AnswerUnreadable):
        wire.served(content)


def test_tokens_come_as_ids_until_the_limit_or_the_end_token():
    assert wire.fragment(FIRST, JOB, 0) == wire.Fragment((Step(34),), ended=False)
    assert wire.fragment(LAST, JOB, 5) == wire.Fragment((Step(659),), ended=True)
    assert wire.fragment(event(token_ids=[5, 2], finish_reason="stop"), JOB, 0) == wire.Fragment((Step(5),), ended=True)
    assert wire.fragment(event(token_ids=[2], finish_reason="stop"), JOB, 0) == wire.Fragment((), ended=True)
    assert wire.fragment(b'{"choices": []}', JOB, 0) == wire.Fragment((), ended=False)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (LAST, 3),  # the server cuts answers shorter than was asked
        (FIRST, 6),  # or gives more
        (event(finish_reason="abort"), 2),
        (event(token_ids=[9], finish_reason="stop"), 0),  # a stop token of its own
        (event(finish_reason="stop"), 0),
        (event(token_ids=[-1]), 0),
        (event(token_ids=["7"] * 2 + [None]), 0),
        (UNKNOWN, 0),
        (b"", 0),
    ],
)
def test_an_answer_that_does_not_keep_to_the_job_is_refused(content, count):
    with pytest.raises(wire.AnswerUnreadable):
        wire.fragment(content, JOB, count)


def test_log_probabilities_come_with_the_likeliest_first():
    job = Job((1,), None, 6, (2,), logprobs=2)
    step = wire.fragment(WITH_LOGPROBS, job, 0).steps[0]
    assert step == Step(34, -1.1516655683517456, ((288, -0.4251469373703003), (34, -1.1516655683517456)))
    assert wire.fragment(WITH_LOGPROBS, Job((1,), None, 6, (2,), logprobs=0), 0).steps[0].top == ()


@pytest.mark.parametrize("top", [{"@": -1.0}, {"token_id:x": -1.0}])
def test_tokens_named_by_their_text_are_refused(top):
    logprobs = {"token_logprobs": [-1.0], "top_logprobs": [top]}
    with pytest.raises(wire.AnswerUnreadable, match="by its text"):
        wire.fragment(event(token_ids=[34], logprobs=logprobs), Job((1,), None, 6, (2,), logprobs=1), 0)


def test_tokens_without_their_log_probabilities_are_refused():
    with pytest.raises(wire.AnswerUnreadable, match="without the log-probabilities"):
        wire.fragment(FIRST, Job((1,), None, 6, (2,), logprobs=1), 0)


def test_answers_are_read_token_by_token_and_shared_beginnings_once():
    answers = [(5, 6, 2), (5, 7, 2), (2,)]
    assert wire.edges(answers) == {5: [()], 6: [(5,)], 2: [(5, 6), (5, 7), ()], 7: [(5,)]}
    body = wire.reading(JOB, 2, [(5, 6), (5, 7), ()], "base")
    assert body["prompt"] == [[1, 50, 60, 5, 6], [1, 50, 60, 5, 7], [1, 50, 60]]
    assert (body["allowed_token_ids"], body["max_tokens"], body["ignore_eos"]) == ([2], 1, True)


def test_log_probabilities_of_a_token_are_those_of_its_rows():
    rows = [
        {"index": 1, "token_ids": [7], "logprobs": {"token_logprobs": [-2.0], "top_logprobs": [None]}},
        {"index": 0, "token_ids": [7], "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [None]}},
    ]
    content = json.dumps({"choices": rows}).encode()
    assert wire.logprobs(content, 7, 2) == [-1.0, -2.0]
    for token, count in ((7, 3), (8, 2)):
        with pytest.raises(wire.AnswerUnreadable, match="no log-probability"):
            wire.logprobs(content, token, count)


def test_waiting_requests_are_summed_over_engines():
    assert wire.waiting(METRICS) == 3
    for content in (b"", b"\xff", b'vllm:num_requests_waiting{engine="0"} many'):
        assert wire.waiting(content) is None


def test_reasons_are_shown_safely_and_cut():
    assert wire.refusal(UNKNOWN).startswith("The model `nosuch` does not exist")
    assert wire.refusal(b"<html>") == ""
    hostile = json.dumps({"error": {"message": "\x1b[2J" + "x" * 9999}}).encode()
    assert wire.refusal(hostile).startswith("\\x1b[2J")
    assert len(wire.refusal(hostile)) == wire.SHOWN


def test_the_version_is_plain_and_short():
    assert wire.version(b'{"version":"0.32.0"}') == "0.32.0"
    assert len(wire.version(json.dumps({"version": "9" * 999}).encode())) == 40
