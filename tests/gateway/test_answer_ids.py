"""Ids of answers: read by replicas that share the secret, and by nobody who made one up."""

import pytest

from lcia.gateway.answer_ids import AnswerUnknown, Origin, Seal

ORIGINS = [Origin(3, "g1"), Origin(None, None), Origin(4, "g2", 7, candidate=True)]


@pytest.mark.parametrize("origin", ORIGINS)
def test_replicas_with_one_secret_read_each_others_ids(origin):
    one, other = Seal("shared"), Seal("shared")
    identity = one.new(origin)
    assert other.read(identity) == origin
    assert identity != one.new(origin), "every answer has its own"
    assert len(identity) <= 80


@pytest.mark.parametrize("seal", [Seal("another"), Seal(None)])
def test_others_do_not(seal):
    with pytest.raises(AnswerUnknown, match="no answer of this gateway"):
        seal.read(Seal("shared").new(ORIGINS[0]))


@pytest.mark.parametrize("text", ["", "lcia-", "lcia-x", "lcia-!!!", "x" * 200, "lcia-" + "A" * 60, "\x00", "é"])
def test_nonsense_is_no_id(text):
    with pytest.raises(AnswerUnknown):
        Seal("shared").read(text)


def test_a_changed_letter_is_noticed():
    seal = Seal("shared")
    identity = seal.new(ORIGINS[2])
    for place in range(5, len(identity)):
        other = identity[:place] + ("A" if identity[place] != "A" else "B") + identity[place + 1 :]
        with pytest.raises(AnswerUnknown):
            seal.read(other)


@pytest.mark.parametrize("change", [lambda i: f"{i}=", lambda i: i[:9] + "*" + i[9:], lambda i: i[5:], lambda i: ""])
def test_an_id_is_not_written_in_two_ways(change):
    seal = Seal("secret")
    with pytest.raises(AnswerUnknown):
        seal.read(change(seal.new(Origin(1, None))))
