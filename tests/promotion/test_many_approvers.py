"""Many people say yes at once, over real HTTP to a real server: one promotion a round, the rest refused, with reasons.

LCIA_ROUNDS and LCIA_APPROVERS make it as large as one likes; `-s` shows what each round took.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import httpx2
import pytest
import yaml
from promotion_state import State

from components.audit.log import SYSTEM, Actor
from components.audit.verify import verify_database
from components.identity import people, tokens
from components.promotion import champion
from components.promotion.champion import Promotion

ROUNDS, APPROVERS = int(os.environ.get("LCIA_ROUNDS", "2")), int(os.environ.get("LCIA_APPROVERS", "12"))
QUORUM = 2


@pytest.fixture
def server(state: State, database_url: str) -> Iterator[tuple[str, list[str]]]:
    """Address of `lcia serve` over the state, and a token for each approver."""
    settings = {
        "assistant": "a",
        "storage": {"database": database_url, "objects": state.store.url},
        "policy": {"approval": {"quorum": QUORUM}},
        "serve": {"port": 0, "rate": "100000/minute"},
    }
    (state.folder / "zenml.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    made = []
    with state.db.begin() as connection:
        for number in range(APPROVERS):
            name = f"approver{number}"
            people.add(connection, name, actor=SYSTEM)
            people.grant(connection, name, "approver", actor=SYSTEM)
            own = Actor(name, assured=True, how="signed in")
            made.append(tokens.create(connection, name, "test", timedelta(hours=1), actor=own)[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LCIA_")}
    environment |= {"LCIA_HOME": str(state.folder / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "lcia.cli.main", "serve"],
        cwd=state.folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield found.group(), made
    finally:
        process.terminate()
        process.wait(timeout=60)


def ask(address: str, token: str, operation: str, **params: object) -> tuple[int, dict]:
    headers = {"authorization": f"Bearer {token}"}
    got = httpx2.post(f"{address}/v1/{operation}", json=params, headers=headers, timeout=300)
    return got.status_code, got.json()


def decided(state: State) -> list[Promotion]:
    with state.db.read() as connection:
        return champion.lineage(connection, "a")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_promotion_a_round_however_many_say_yes_at_once(state, server):
    address, known = server
    took = []
    for number in range(ROUNDS):
        before = decided(state)
        parent = before[-1].version if before else None
        rivals = [state.candidate(f"task-{number}-{side}", parent) for side in "ab"]
        barrier = threading.Barrier(APPROVERS)
        answers: list[tuple[int, dict]] = [(0, {})] * APPROVERS

        def say_yes(place: int, rivals=rivals, barrier=barrier, answers=answers) -> None:
            version = str(rivals[place % 2].number)
            barrier.wait()
            answers[place] = ask(address, known[place], "approve", version=version, reason="read")

        threads = [threading.Thread(target=say_yes, args=(place,)) for place in range(APPROVERS)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took.append(time.perf_counter() - start)

        after = decided(state)
        assert len(after) == len(before) + 1
        assert after[-1].version in {rival.digest for rival in rivals}
        kinds = Counter(kind(code, body) for code, body in answers)
        assert kinds["promoted"] == 1, (kinds, answers)
        assert kinds["?"] == 0, answers
        with state.db.read() as connection:
            assert verify_database(connection).ok
        loser = next(rival for rival in rivals if rival.digest != after[-1].version)
        code, body = ask(address, known[0], "approve", version=str(loser.number), reason="again")
        assert code >= 400
        assert "superseded (it does not stand on the champion" in body["message"]
    first = decided(state)[0]
    start = time.perf_counter()
    assert ask(address, known[0], "rollback", version=first.version, reason="complaints")[0] == 200
    back = time.perf_counter() - start
    assert decided(state)[-1].version == first.version
    shown = {"approvers": APPROVERS, "rounds": ROUNDS, "seconds_a_round": round(sum(took) / len(took), 2)}
    print(json.dumps({"database": state.db.engine.dialect.name, **shown, "rollback_seconds": round(back, 2)}))


def kind(code: int, body: dict) -> str:
    """What became of one yes."""
    if code == 200:
        return "known" if body["known"] else "promoted" if body["epoch"] else "waits for more"
    said = ("made on another champion", "already", "waits", "superseded", "rejected", "promoted", "champion")
    return "refused" if 400 <= code < 500 and any(word in body["message"] for word in said) else "?"
