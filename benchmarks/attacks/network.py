"""Over the network: without an account, with a role that decides nothing, or with somebody's old cookie."""

import contextlib
import re
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from itsdangerous import TimestampSigner

from benchmarks.attacks.attack import attack, held
from benchmarks.attacks.installation import Installation

DENIALS, BAD_TOKENS, HALF_REQUESTS, STREAMS = 300, 60, 1_100, 300


def _entries(system: Installation) -> int:
    return int(system.look("root", "status")[1]["audit"]["entries"])


@attack("lock-out", "nobody's account")
def bad_tokens_lock_nobody_out(system: Installation) -> None:
    """Sends wrong tokens from the address that everybody shares, so that valid ones are refused too."""
    for number in range(BAD_TOKENS):
        headers = {"authorization": f"Bearer lcia_{number:016x}_{'0' * 43}"}
        httpx2.get(f"{system.service}/v1/status", headers=headers, timeout=30)
    status, _ = system.look("ann", "status")
    held(status == 200, f"ann's valid token got {status}")


@attack("lock-out", "nobody's account")
def forwarded_addresses_are_not_believed(system: Installation) -> None:
    """Gives another X-Forwarded-For with each wrong token, so that no limit counts them together."""
    seen = [
        httpx2.get(
            f"{system.service}/v1/status",
            headers={"authorization": "Bearer lcia_0_0", "x-forwarded-for": f"203.0.113.{number}"},
            timeout=30,
        ).status_code
        for number in range(BAD_TOKENS)
    ]
    held(429 in seen, f"{BAD_TOKENS} wrong tokens from made-up addresses were all tried: {set(seen)}")


@attack("flood", "an auditor's token")
def denials_flood_the_log(system: Installation) -> None:
    """Asks hundreds of times for what the role does not allow; each denial would be an entry that nobody can delete."""
    before = _entries(system)
    for _ in range(DENIALS):
        status, _ = system.ask("tom", "approve", version="3", reason="let me")
        held(status in {403, 429}, f"tom's approval got {status}")
    grown = _entries(system) - before
    held(grown <= 10, f"{DENIALS} denials made {grown} entries")


@attack("sessions", "an old cookie")
def cookie_copied_before_the_sign_out(system: Installation) -> None:
    """Uses a copy of a session's cookie after its owner signed out."""
    with httpx2.Client(base_url=system.service, headers={"accept": "text/html"}, timeout=30) as browser:
        csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/login/token").text)
        if csrf is None:
            raise RuntimeError("the sign-in page has no form")
        browser.post("/login/token", data={"csrf": csrf[1], "token": system.tokens["ann"]})
        copied = browser.cookies["lcia_session"]
        held(_knows(system, copied), "the cookie does not work even before the sign-out: the attack is broken")
        page = browser.get("/")
        form = re.search(r'name="csrf" value="([^"]+)"', page.text)
        browser.post("/logout", data={"csrf": form[1] if form else ""})
    held(not _knows(system, copied), "the copied cookie still signs in as ann")


@attack("keys", "MLflow's session secret")
def cookie_forged_with_the_secret_of_mlflow(system: Installation) -> None:
    """Signs a session of ann with the secret that MLflow's process holds."""
    session = b'{"person": "ann", "csrf": "x"}'
    secret = _environment_of(system, "mlflow", "MLFLOW_FLASK_SERVER_SECRET_KEY")
    held(secret != system.environments["service"]["LCIA_SESSION_SECRET"], "MLflow and the service share one secret")
    forged = TimestampSigner(secret).sign(b64encode(session)).decode()
    held(not _knows(system, forged), "a cookie signed with MLflow's secret signs in as ann")


def _environment_of(system: Installation, process: str, name: str) -> str:
    """A variable of a running process, read as root."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and folder.stat().st_uid == system.uid(process):
            parts = (folder / "environ").read_text(encoding="utf-8").split("\0")
            for part in parts:
                if part.startswith(f"{name}="):
                    return part.partition("=")[2]
    raise RuntimeError(f"no process of {process} has {name}")


def _knows(system: Installation, cookie: str) -> bool:
    """True if the service accepts a cookie as a session."""
    got = httpx2.get(
        f"{system.service}/", headers={"accept": "text/html", "cookie": f"lcia_session={cookie}"}, timeout=30
    )
    return got.status_code == 200 and "/login" not in str(got.url) and 'action="/login' not in got.text


@contextlib.contextmanager
def _half_requests(system: Installation, count: int) -> Iterator[list[socket.socket]]:
    """Requests whose headers never end."""
    where = urlsplit(system.service)
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            line = socket.create_connection((str(where.hostname), int(where.port or 80)), timeout=5)
            opened.append(line)
            with contextlib.suppress(OSError):
                line.sendall(b"POST /v1/submit HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n")
        yield opened
    finally:
        for line in opened:
            line.close()


@attack("streams", "nobody's account")
def half_requests(system: Installation) -> None:
    """Opens a thousand requests that never end, so that no descriptor is left for others."""
    with _half_requests(system, HALF_REQUESTS):
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                if system.look("ann", "status")[0] == 200:
                    return
            held(time.monotonic() < deadline, "nobody is answered for a minute")
            time.sleep(1)


@attack("streams", "an auditor's session")
def streams_of_one_reader(system: Installation) -> None:
    """Opens hundreds of event streams of the overview."""
    where = urlsplit(system.service)
    request = f"GET /events HTTP/1.1\r\nhost: {where.netloc}\r\nauthorization: Bearer {system.tokens['tom']}\r\n\r\n"
    opened, answers = [], []
    try:
        for _ in range(STREAMS):
            line = socket.create_connection((str(where.hostname), int(where.port or 80)), timeout=30)
            opened.append(line)
            line.sendall(request.encode())
        for line in opened:
            with contextlib.suppress(OSError):
                answers.append(line.recv(200).partition(b"\r\n")[0].decode())
        refusals = sum(" 429 " in answer or " 503 " in answer for answer in answers)
        held(
            refusals >= STREAMS // 2,
            f"{STREAMS - refusals} of {STREAMS} streams of one person are open: {set(answers)}",
        )
        held(system.look("ann", "status")[0] == 200, "ann is not answered beside tom's streams")
    finally:
        for line in opened:
            line.close()
