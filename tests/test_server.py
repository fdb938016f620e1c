"""Lines of the service's log: one a record, whatever its words are."""

import logging
import subprocess
import sys


def test_no_word_forges_a_line_of_the_log():
    program = (
        "import logging; from lcia.server import log_plainly; log_plainly();"
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
    from lcia.server import _Lines

    try:
        int("a\n2026-01-01 forged\x1b")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    first, *rest = _Lines("%(message)s").format(record).splitlines()
    assert first == "failed"
    assert all(line.startswith("  ") for line in rest)
