"""SIGTERM while somebody works: noted, and obeyed when they are ready."""

import os
import signal
import threading

import pytest

from components.tuning.stopping import put_off


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch):
    """What the handler that was there before has been called with."""
    noted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))
    yield noted
    signal.signal(signal.SIGTERM, before)


def test_it_is_noted_within_and_obeyed_after(calls: list[int]) -> None:
    with put_off() as stop:
        assert not stop.due
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.due
        assert calls == []
    assert calls == [signal.SIGTERM]


def test_who_works_may_obey_earlier_and_nothing_is_put_off_any_more(calls: list[int]) -> None:
    with put_off() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        stop.obey()
        assert calls == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == [signal.SIGTERM] * 2


def test_the_handler_before_is_there_again(calls: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with put_off():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert calls == []


def test_in_another_thread_nothing_is_changed(calls: list[int]) -> None:
    before, within = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with put_off():
            within.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert within == [before]
