"""Ids of answers: sealed, and with one way to be written."""

import pytest

from lcia.gateway.answer_ids import AnswerUnknown, Origin, Seal


def test_replicas_with_one_secret_read_each_others_ids_and_nobody_else_does():
    origin = Origin(3, "g2", 7, candidate=True)
    identity = Seal("secret").new(origin)
    assert Seal("secret").read(identity) == origin
    for other in (Seal("another"), Seal(None)):
        with pytest.raises(AnswerUnknown):
            other.read(identity)


@pytest.mark.parametrize("change", [lambda i: f"{i}=", lambda i: i[:9] + "*" + i[9:], lambda i: i[5:], lambda i: ""])
def test_an_id_is_not_written_in_two_ways(change):
    seal = Seal("secret")
    with pytest.raises(AnswerUnknown):
        seal.read(change(seal.new(Origin(1, None))))
