"""The socket of a server, and lines of its log: one a record, whatever its words are."""

import logging
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from lcia.service.listening import PortTaken, listening_at


def test_no_word_forges_a_line_of_the_log():
    program = (
        "import logging; from lcia.service.listening import log_plainly; log_plainly();"
        "logging.getLogger('lcia.service').warning('from %s', 'bob\\n2026-01-01 ERROR forged\\x1b[2J');"
        "logging.getLogger('uvicorn.error').error('asked for %s', '/x\\u202e');"
        "logging.getLogger('elsewhere').warning('a\\rb')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    assert lines[0].endswith(r"WARNING lcia.service: from bob\n2026-01-01 ERROR forged\x1b[2J")
    assert lines[1].endswith(r"ERROR uvicorn.error: asked for /x\u202e")
    assert lines[2].endswith(r"WARNING elsewhere: a\rb")


def test_a_traceback_stays_below_its_record():
    from lcia.service.listening import _Lines

    try:
        int("a\n2026-01-01 forged\x1b")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    first, *rest = _Lines("%(message)s").format(record).splitlines()
    assert first == "failed"
    assert all(line.startswith("  ") for line in rest)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost"])
def test_it_listens_on_addresses_of_both_kinds(host: str) -> None:
    try:
        listening, address = listening_at(host, 0, "serve")
    except PortTaken:
        if ":" in host and not socket.has_ipv6:
            pytest.skip("no IPv6 here")
        raise
    with listening:
        with socket.create_connection(listening.getsockname()[:2], timeout=5):
            pass
        assert urlsplit(address).port == listening.getsockname()[1]
        assert (":" in listening.getsockname()[0]) == (":" in host)


def test_a_port_that_is_taken_is_said_with_the_settings_that_name_it():
    listening, _ = listening_at("127.0.0.1", 0, "gateway")
    port = listening.getsockname()[1]
    with listening, pytest.raises(PortTaken, match=rf"gateway\.port {port} .*another `lcia gateway` running"):
        listening_at("127.0.0.1", port, "gateway")
