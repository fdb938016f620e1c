"""Files of requests for `lcia route`."""

import json

import pytest

from lcia.cli import batches
from lcia.cli.batches import BatchRefused


def test_one_request_or_a_file(tmp_path):
    assert batches.requests("Do it.", "text", None) == [{"instruction": "Do it.", "input": "text"}]
    file = tmp_path / "requests.jsonl"
    rows = [{"instruction": "a", "input": "b"}, {"instruction": "c"}, {"instruction": "d", "input": None, "more": 1}]
    file.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert batches.requests(None, None, file) == [
        {"instruction": "a", "input": "b"}, {"instruction": "c", "input": None}, {"instruction": "d", "input": None},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no request"),
        (b"not json", "line 1 is not JSON"),
        (b'{"instruction": "a"}\n[1]', "line 2 has no instruction"),
        (b'{"instruction": " "}', "line 1 has no instruction"),
        (b'{"instruction": "a", "input": 7}', "`input` that is no text"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path, content, message):
    file = tmp_path / "requests.jsonl"
    file.write_bytes(content)
    with pytest.raises(BatchRefused, match=message):
        batches.requests(None, None, file)


def test_arguments_that_do_not_fit(tmp_path):
    for arguments in ((None, None, None), ("a", None, tmp_path / "x"), (None, "text", tmp_path / "x")):
        with pytest.raises(BatchRefused, match="give either"):
            batches.requests(*arguments)
    with pytest.raises(BatchRefused, match="nowhere"):
        batches.requests(None, None, tmp_path / "nowhere")


def test_portions_hold_every_request_once():
    rows = [{"instruction": str(n), "input": None} for n in range(2 * batches.PORTION + 1)]
    portions = list(batches.portions(rows))
    assert [len(each) for each in portions] == [batches.PORTION, batches.PORTION, 1]
    assert [row for each in portions for row in each] == rows


def test_fallbacks_by_name():
    assert [batches.fallback(name) for name in (None, "ask", "base", "answer")] == [None, "ask", "base", "answer"]
    with pytest.raises(BatchRefused, match="expected answer, ask, base"):
        batches.fallback("never")
