"""Words of packages and people can't forge lines, move the cursor or turn a line around; the log keeps them exactly."""

import json
from typing import TYPE_CHECKING

import pytest
from small_loop import SmallLoop

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

FORGED = "   99  2026-01-01T00:00:00Z  ops                   champion.promoted       everything"
REASON = f"looks fine\n{FORGED}\x1b[2A\x1b[31m\x9b31m\u202edlog\u200b\r\x07"


@pytest.fixture
def promoted(lcia: "Lcia", pending: SmallLoop) -> SmallLoop:
    assert lcia(pending, "approve", "1", "--as", "ops", "--reason", REASON).code == 0
    return pending


@pytest.mark.parametrize("verb", ["audit show", "show 1", "lineage", "status", "candidates"])
def test_a_reason_is_a_part_of_its_line(lcia: "Lcia", promoted: SmallLoop, verb: str) -> None:
    ended = lcia(promoted, *verb.split())
    assert ended.code == 0
    for sign in "\x1b\x9b\u202e\u200b\r\x07":
        assert sign not in ended.out, ascii(sign)
    assert FORGED not in ended.out.splitlines()
    if verb in ("audit show", "show 1", "lineage"):
        assert "looks fine\\n   99" in ended.out
        assert "\\x1b[2A" in ended.out
        assert "\\u202edlog\\u200b\\r\\x07" in ended.out


def test_json_is_exact_and_as_harmless(lcia: "Lcia", promoted: SmallLoop) -> None:
    ended = lcia(promoted, "audit", "show", "--kind", "candidate.approved", "--json")
    assert [entry["details"]["reason"] for entry in json.loads(ended.out)] == [REASON]
    assert ended.out.strip("\n").isprintable()
    assert lcia(promoted, "audit", "verify").code == 0


def test_a_refusal_stays_one_message(lcia: "Lcia", promoted: SmallLoop) -> None:
    ended = lcia(promoted, "show", "1\nlcia: all is well\x1b[2K")
    assert ended.code == 1
    assert [line for line in ended.err.splitlines() if line.startswith("lcia:")] == ended.err.splitlines()[:1]
    assert "\x1b" not in ended.err


def test_a_signed_document_is_printed_to_the_last_byte(lcia: "Lcia", promoted: SmallLoop) -> None:
    (entry,) = lcia(promoted, "audit", "show", "--kind", "candidate.approved", "--json").json
    file = promoted.home / "printed.proof"
    file.write_text(lcia(promoted, "audit", "prove", "--entry", entry["index"]).out, encoding="utf-8")
    assert "\u202e" in file.read_text(encoding="utf-8")
    assert lcia(promoted, "audit", "check-proof", file).code == 0
