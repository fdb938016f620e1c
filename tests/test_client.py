"""The command line against a real server says what it says without one: same words, same JSON, same exit codes."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import get_args

import pytest
import yaml
from small_loop import SmallLoop

from components.audit.keys import read_public_key
from components.audit.log import SYSTEM, Actor
from components.audit.verify import verify_export
from components.identity import people, tokens
from components.roles import Role
from lcia.cli.main import main
from lcia.instance import user_name
from lcia.operations import audit

ME = user_name(os.getuid())
"""Who acts without a server, and so the name that the token stands for."""

ASKED = """
status
status --json
tasks
tasks --json
tasks --state wrong
candidates
show 1
show 1 --json
show 99
lineage
lineage 1
matrix
matrix --version 1
diff 1 1
policy
flips 1 --json
cancel 99 --reason r
approve 1 --reason " "
revoke 1 --reason "there is none"
regroup 1 g9 --reason r
approve 1 --reason read
approve 1 --reason again
rollback 1 --reason r
supersede a@1 b@1 --reason r
retry 1
sync --json
status
audit show --kind candidate
"""


@pytest.fixture
def server(pending: SmallLoop) -> Iterator[tuple[str, str]]:
    """`lcia serve` as a process over a state with a candidate: its address, and a token that may do everything."""
    instance = pending.open()
    with instance.db.begin() as connection:
        people.add(connection, ME, actor=SYSTEM)
        for role in get_args(Role):
            people.grant(connection, ME, role, actor=SYSTEM)
        _, token = tokens.create(
            connection, ME, "test", timedelta(hours=1), actor=Actor(ME, assured=True, how="signed in")
        )
    told = yaml.safe_load(pending.config.read_text(encoding="utf-8")) | {"serve": {"port": 0}}
    pending.config.write_text(yaml.safe_dump(told), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LCIA_")}
    environment |= {"LCIA_HOME": str(pending.home)}
    process = subprocess.Popen(
        [sys.executable, "-m", "lcia.cli.main", "serve"],
        cwd=pending.config.parent,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield found.group(), token
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def both(server, pending, tmp_path_factory, monkeypatch, capsys) -> Callable[..., list[tuple[int, str, str]]]:
    """Run a command line on a copy of the state and on the server: `(exit code, stdout, stderr)` of each."""
    here = pending.copy(tmp_path_factory.mktemp("here"))
    nowhere = tmp_path_factory.mktemp("client") / "home"

    def run(*argv: str) -> list[tuple[int, str, str]]:
        ended = []
        monkeypatch.chdir(here.config.parent)
        monkeypatch.setattr(sys, "argv", ["lcia", *argv])
        for home, (address, token) in ((here.home, ("", "")), (nowhere, server)):
            here.enter()
            for name, value in (("HOME", str(home)), ("SERVER", address), ("TOKEN", token)):
                monkeypatch.setenv(f"LCIA_{name}", value)
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main()
            got = capsys.readouterr()
            ended.append((int(str(end.value.code)), _plain(got.out), _plain(got.err)))
        assert not nowhere.exists(), "a client makes no state"
        return ended

    return run


def _plain(text: str) -> str:
    """Without what differs between any two moments or two logs: times and the log's root."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?([+]\d\d:\d\d)?", "TIME", text)
    text = re.sub(r"root [0-9a-f]{16}", "root", text)
    return re.sub(r'"(head|leaf|root|how)": "[^"]*"|"(index|entries)": \d+|\d+ entries', "SIZE", text)


def test_words_json_and_exit_codes_are_the_same_with_and_without_a_server(both):
    for line in ASKED.strip().splitlines():
        here, there = both(*shlex.split(line))
        assert here == there, line


def test_what_a_server_can_not_be_told_is_refused_before_it_is_asked(both):
    for argv, said in [
        (("status", "--config", "zenml.yaml"), None),
        (("approve", "1", "--reason", "r", "--as", "eve"), "--as 'eve'"),
        (("approve", "1", "--reason", "r", "--set", "policy.approval.quorum=1"), "--set"),
        (("work",), "unset it here"),
        (("ask", "What?"), "unset it here"),
    ]:
        code, out, err = both(*argv)[1]
        assert (code, out) == (1, "") if said else code == 0, argv
        assert (said or "") in err


def test_an_export_through_a_server_is_the_servers_log(both, pending, tmp_path):
    where = tmp_path / "there.jsonl"
    here, there = both("audit", "export", str(where))
    assert (here[0], there[0]) == (0, 0)
    assert here[1] == there[1]
    local = tmp_path / "local.jsonl"
    audit.export(pending.open(), local)
    size = len(where.read_bytes())
    assert where.read_bytes() == local.read_bytes()[:size]
    assert size > 1000
    key = read_public_key(pending.home / "keys" / "audit-key.pub.pem")
    verified = verify_export(where, key, where.with_name("there.jsonl.head"))
    assert verified.ok, verified
