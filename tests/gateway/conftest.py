"""Fixtures of the gateway's tests."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """Lines of the gateway and of the libraries that run it, whatever ZenML has switched off in this process."""
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    loggers = [logging.getLogger(name) for name in ("lcia.gateway", "uvicorn.error", "asyncio")]
    for logger in loggers:
        monkeypatch.setattr(logger, "disabled", False)
        logger.addHandler(caplog.handler)
        logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
    yield caplog
    for logger in loggers:
        logger.removeHandler(caplog.handler)
