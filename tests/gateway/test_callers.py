"""Limits of callers: places are counted by answers, and come back."""

import pytest

from components.settings import GatewaySettings
from lcia.gateway.callers import LOCAL, Admission, Asker, TooBusy, TooManyAnswers


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
