"""Callers of the gateway, known by hashes of tokens alone; how often and how many at once."""

from datetime import UTC, datetime, timedelta

import pytest

from components.settings import GatewaySettings
from components.storage.objects import digest_of
from lcia.gateway.callers import (
    LOCAL,
    Admission,
    Asker,
    CallerUnknown,
    TooBusy,
    TooManyAnswers,
    TooOften,
    asker_of,
)


def token(permissions=("answer",), days=1.0):
    """A token as the service tells it."""
    end = datetime.now(UTC) + timedelta(days=days)
    return {"id": "abc", "check": digest_of(b"secret"), "expires_at": end.isoformat(), "permissions": list(permissions)}


def test_a_token_is_known_by_its_hash():
    assert asker_of("Bearer lcia_abc_secret", {"abc": token()}) == Asker("abc", tries=False)
    assert asker_of("bearer lcia_abc_secret", {"abc": token(("answer", "try"))}).tries


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic lcia_abc_secret", "Bearer lcia_abc_other", "Bearer lcia_xyz_secret",
     "Bearer lcia_abc_", "Bearer secret", f"Bearer lcia_abc_{digest_of(b'secret')}"],
)  # fmt: skip
def test_nothing_else_is(header):
    with pytest.raises(CallerUnknown) as refusal:
        asker_of(header, {"abc": token()})
    assert "secret" not in str(refusal.value)


def test_an_expired_token_is_refused_without_the_service():
    with pytest.raises(CallerUnknown, match="has expired"):
        asker_of("Bearer lcia_abc_secret", {"abc": token(days=-0.1)})


def test_places_are_limited_for_all_and_for_each_and_given_back():
    admission = Admission(GatewaySettings(waiting=8))
    one, two = Asker("one", tries=False), Asker("two", tries=False)
    with admission.place(one), admission.place(one):
        with pytest.raises(TooBusy, match="2 answers of this token"), admission.place(one):
            pass
        with admission.place(two):
            assert admission.total == 3
    assert admission.total == 0
    assert not admission.running
    places = [admission.place(LOCAL) for _ in range(8)]
    for place in places:
        place.__enter__()
    with pytest.raises(TooBusy, match="8 answers are under way"), admission.place(two):
        pass


def test_the_rate_is_each_tokens_own():
    admission = Admission(GatewaySettings(rate="2/minute"))
    for _ in range(2):
        with admission.place(Asker("one", tries=False)):
            pass
    with pytest.raises(TooOften, match=r"gateway\.rate"), admission.place(Asker("one", tries=False)):
        pass
    with admission.place(Asker("two", tries=False)):
        pass


def test_a_request_takes_a_place_for_each_of_its_answers():
    admission, shop, other = Admission(GatewaySettings(waiting=8)), Asker("shop", tries=False), Asker("x", tries=False)
    with pytest.raises(TooManyAnswers, match="n is 3, expected at most 2"), admission.place(shop, 3):
        pass
    with admission.place(shop, 2):
        assert admission.total == 2
        with pytest.raises(TooBusy, match="of this token"), admission.place(shop):
            pass
        with admission.place(other, 2), admission.place(LOCAL, 4):
            assert admission.total == 8
            with pytest.raises(TooBusy, match="at most 8"), admission.place(Asker("y", tries=False)):
                pass
    assert not admission.running


def test_one_caller_sends_a_part_of_the_bodies_that_may_come_at_once():
    admission, shop = Admission(GatewaySettings(waiting=8)), Asker("shop", tries=False)
    with admission.body(shop), admission.body(shop):
        with pytest.raises(TooBusy, match="being sent"), admission.body(shop):
            pass
        with admission.body(Asker("other", tries=False)):
            pass
    assert not admission.reading
