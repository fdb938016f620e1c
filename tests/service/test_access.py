"""Who may ask for what: every route as every role and as nobody, against the table."""

import io
import re
import zipfile
from typing import get_args

import pytest

from components.audit import log
from components.audit.log import SYSTEM
from components.identity import people, tokens
from components.identity.access import TABLE
from components.roles import Role
from lcia.operations.table import OPERATIONS

PARAMS = {
    "diff": {"before": "1", "after": "1"},
    "flips": {"version": "1"},
    "image": {"version": "1", "task": "movie_sentiment", "image": "0" * 64},
    "approve": {"version": "99", "reason": "r"},
    "reject": {"version": "99", "reason": "r"},
    "revoke": {"version": "99", "reason": "r"},
    "rollback": {"version": "99", "reason": "r"},
    "show": {"version": "1"},
    "prove": {"entry": 0},
    "statement": {"version": "1"},
    "matrix": {"version": "1"},
    "supersede": {"old": "a@1", "new": "b@1", "reason": "r"},
    "report": {"replica": "gw", "engine": "e", "ready": False},
    "trial-answers": {"trial": 99},
    "start-trial": {"version": "99", "kind": "shadow", "share": 1, "reason": "r"},
    "approve-trial": {"trial": 99, "reason": "r"},
    "stop-trial": {"trial": 99, "reason": "r"},
    "route": {"requests": [{"instruction": "Do it."}]},
    "change-wordings": {"task": "a@1", "add": ["b"]},
    "revert": {"task": "a@1", "reason": "r"},
    "propose-wordings": {"task": "a@1", "texts": ["b"]},
    "answer-wordings": {"numbers": [99], "accept": True},
    "withdraw": {"task": "a@1", "reason": "r"},
    "retry": {"item": 99},
    "release": {"item": 99, "reason": "r"},
    "regroup": {"item": 99, "reason": "r", "group": "g1"},
    "prioritise": {"item": 99, "priority": 1, "reason": "r"},
    "pause": {"item": 99, "reason": "r"},
    "resume": {"item": 99},
    "cancel": {"item": 99, "reason": "r"},
    "break-lease": {"lease": "nothing", "reason": "r"},
    "propose-policy": {"changes": {"gate": {"step_margin": 9}}, "reason": "r"},
    "answer-policy": {"proposal": 99, "accept": True, "reason": "r"},
    "add-person": {"person": "new"},
    "grant": {"person": "nobody", "role": "admin"},
    "answer-grant": {"proposal": 99, "accept": True, "reason": "r"},
    "disable-person": {"person": "nobody", "reason": "r"},
    "create-token": {"person": "nobody", "label": "l"},
    "revoke-token": {"token": "nobody", "reason": "r"},
}


@pytest.fixture
def server(serve, pending):
    return serve(pending)


def test_every_route_as_every_role_and_as_nobody(server):
    wrong = []
    for name, operation in OPERATIONS.items():
        params = PARAMS.get(name, {})
        if server.ask(None, name, **params).status_code != 401:
            wrong.append((name, "nobody"))
        for role in get_args(Role):
            refused = server.ask(role, name, **params).status_code == 403
            if refused is (role in TABLE[operation.permission]):
                wrong.append((name, role))
    assert wrong == []


def test_nothing_else_answers_without_a_sign_in(server):
    paths = {
        re.sub(r"\{[^}]*\}", "1", route.path.replace("{operation}", "approve")) for route in server.client.app.routes
    }
    open_ones = {path for path in paths if server.client.get(path).status_code not in (401, 405)}
    assert open_ones == {"/health", "/metrics", "/openapi.json", "/login", "/login/token", "/static"}


def test_denials_of_known_people_are_logged(server):
    assert server.ask("submitter", "approve", version="1", reason="mine").status_code == 403
    with server.instance.db.read() as connection:
        entry = log.entries(connection)[-1]
    assert (entry.action, entry.actor.name, entry.subject) == ("access.denied", "submitter", "approve")


def test_a_role_holds_for_its_site_only(server):
    owner = server.ask("admin", "tasks").json()["tasks"][0]["owner"]
    server.person("here", "approver", site=owner)
    server.person("there", "approver", site="elsewhere")
    refused = server.ask("there", "approve", version="1", reason="read")
    assert refused.status_code == 403
    assert f"`decide` at {owner}" in refused.json()["message"]
    assert server.ask("here", "approve", version="1", reason="read").json()["state"] == "promoted"


def test_a_token_is_limited_to_what_it_was_made_for(server):
    server.person("bot", "approver", only=("look",))
    assert server.ask("bot", "status").status_code == 200
    refused = server.ask("bot", "approve", version="1", reason="read")
    assert (refused.status_code, refused.json()["error"]) == (403, "Forbidden")
    assert "limited to look" in refused.json()["message"]


def test_somebody_shut_out_may_nothing_at_once(server):
    assert server.ask("approver", "status").status_code == 200
    with server.instance.db.begin() as connection:
        people.disable(connection, "approver", actor=SYSTEM, reason="left")
    assert server.ask("approver", "status").status_code == 401


def test_a_revoked_token_ends_at_once(server):
    made = server.ask("admin", "create-token", person="engineer", label="x").json()
    server.tokens["second"] = made["token"]
    assert server.ask("second", "status").status_code == 200
    assert server.ask("admin", "revoke-token", token=made["id"], reason="lost").status_code == 200
    assert server.ask("second", "status").status_code == 401


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer x", "lcia_a_b", "Bearer lcia_a_b", "Bearer \u00ff"])
def test_other_authorizations_are_refused_without_being_repeated(server, header):
    got = server.client.get("/v1/status", headers={"authorization": header.encode("latin-1")})
    assert got.status_code == 401
    assert got.headers["www-authenticate"] == "Bearer"
    assert "YTpi" not in got.text


def test_guessing_is_slowed_down(serve, pending):
    server = serve(pending, "serve.failure_rate=3/minute")
    codes = [
        server.client.get("/v1/status", headers={"authorization": "Bearer lcia_a_b"}).status_code for _ in range(5)
    ]
    assert codes == [401, 401, 401, 429, 429]


def test_one_caller_does_not_take_it_all(serve, pending):
    server = serve(pending, "serve.rate=3/minute")
    assert [server.ask("engineer", "status").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert server.ask("auditor", "status").status_code == 200


def test_packages_come_from_people_of_their_site(server):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for file in sorted(server.loop.package("passive_voice").iterdir()):
            archive.write(file, file.name)
    owner = (server.loop.package("passive_voice") / "task.yaml").read_text().split("owner: ")[1].split("\n")[0]
    server.person("site", "submitter", site=owner)
    server.person("other", "submitter", site="elsewhere")

    def send(name, kind="application/zip", content=None):
        heads = {"authorization": f"Bearer {server.tokens[name]}", "content-type": kind}
        return server.client.post("/v1/submit", content=content or data.getvalue(), headers=heads)

    assert send("other").status_code == 403
    assert send("engineer").status_code == 403
    assert send("site", kind="text/plain").status_code == 415
    broken = send("site", content=b"PK\x03\x04 no archive")
    assert (broken.status_code, broken.json()["error"]) == (422, "PackageError")
    sent = send("site")
    assert (sent.status_code, sent.json()["state"], sent.json()["known"]) == (200, "submitted", False)
    assert send("site").json()["known"] is True


def test_secrets_are_in_no_answer_and_no_file(server):
    text = server.tokens["admin"].split("_", 2)[2]
    for operation in ("status", "tokens", "people", "entries", "policy"):
        who = "auditor" if operation == "entries" else "admin"
        assert text not in server.ask(who, operation).text
    for file in server.loop.home.rglob("*.db*"):
        assert text.encode() not in file.read_bytes()
    with server.instance.db.read() as connection:
        assert tokens.check(server.instance.db, server.tokens["admin"])[0].name == "admin"
        assert log.count(connection) > 0


def test_answers_are_not_kept_or_guessed_at_by_browsers(server):
    got = server.ask("engineer", "status")
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["x-content-type-options"] == "nosniff"


def test_large_bodies_are_refused(server):
    got = server.ask("admin", "propose-policy", changes={"x": "y" * 2_000_000}, reason="r")
    assert got.status_code == 413
