"""Signing in through a real provider: who comes in, and what keeps others out."""

import re
import shlex
import time

import httpx2
import pytest
import yaml
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey
from provider import SECRET, Provider

from components.audit import log
from components.audit.log import SYSTEM, Actor
from components.identity import appointments, people
from components.identity.people import PersonRefused
from lcia.cli import main
from lcia.server import make_app
from lcia.service.sign_in import ServeRefused

ROOT = Actor("root", assured=True, how="os-user")
ENVIRONMENT = {"LCIA_SESSION_SECRET": "s" * 40, "LCIA_OIDC_SECRET": SECRET}


@pytest.fixture
def provider():
    found = Provider()
    yield found
    found.server.shutdown()


@pytest.fixture
def instance(fresh, provider):
    return fresh.open(f"serve.issuer={provider.issuer}", "serve.address=http://testserver")


@pytest.fixture
def client(instance):
    return TestClient(make_app(instance, ENVIRONMENT), follow_redirects=False)


def sign_in(client, change=lambda url: url):
    """From /login to the provider and back; the answer to the callback."""
    begun = client.get("/login")
    assert begun.status_code == 302
    back = httpx2.get(begun.headers["location"]).headers["location"]
    return client.get(change(back))


def test_somebody_new_comes_in_without_a_role(client, instance):
    assert sign_in(client).status_code == 303
    refused = client.get("/v1/status")
    assert refused.status_code == 403
    assert "bob has no role" in refused.json()["message"]
    with instance.db.begin() as connection:
        people.grant(connection, "bob", "engineer", actor=SYSTEM)
    assert client.get("/v1/status").status_code == 200
    with instance.db.read() as connection:
        actions = [entry.action for entry in log.entries(connection)]
    assert actions == ["person.added", "person.signed_in", "access.denied", "role.granted"]


def test_the_log_names_the_person_and_how_they_signed_in(client, instance, provider):
    sign_in(client)
    with instance.db.begin() as connection:
        people.grant(connection, "bob", "admin", actor=SYSTEM)
    assert client.post("/v1/add-person", json={"person": "eve"}).status_code == 200
    with instance.db.read() as connection:
        actor = log.entries(connection)[-1].actor
    assert (actor.name, actor.assured, actor.how) == ("bob", True, f"signed in at {provider.issuer}")


def test_signing_out_ends_the_session(client):
    sign_in(client)
    assert client.post("/logout").status_code == 204
    assert client.get("/v1/status").status_code == 401


def test_somebody_shut_out_stays_out(client, instance):
    sign_in(client)
    with instance.db.begin() as connection:
        people.add(connection, "ada", actor=SYSTEM)
        people.disable(connection, "bob", actor=SYSTEM, reason="left")
    assert client.get("/v1/status").status_code == 401
    assert sign_in(client).status_code == 401


def test_nobody_gets_the_name_of_somebody_else(client, instance, provider):
    with instance.db.begin() as connection:
        people.add(connection, "bob", subject="https://other|7", actor=SYSTEM)
        people.grant(connection, "bob", "admin", actor=SYSTEM)
    assert sign_in(client).status_code == 303
    refused = client.get("/v1/status")
    assert refused.status_code == 403
    assert "bob (2) has no role" in refused.json()["message"]


@pytest.mark.parametrize(
    "spoil",
    [{"aud": "another"}, {"iss": "https://evil"}, {"exp": int(time.time()) - 900}, {"nonce": "replayed"}],
    ids=lambda spoil: next(iter(spoil)),
)
def test_an_id_token_that_is_not_for_us_now_is_refused(client, provider, spoil):
    provider.spoil = spoil
    assert sign_in(client).status_code == 401
    assert client.get("/v1/status").status_code == 401


def test_an_id_token_of_another_key_is_refused(client, provider):
    provider.signing = RSAKey.generate_key(2048, {"kid": "1"})
    assert sign_in(client).status_code == 401


@pytest.mark.parametrize("change", [lambda url: url.replace("state=", "state=x"), lambda url: url.split("&state")[0]])
def test_a_callback_that_nobody_here_began_is_refused(client, change):
    assert sign_in(client, change).status_code == 401
    assert client.get("/v1/status").status_code == 401


def test_a_code_works_once(client):
    begun = client.get("/login")
    back = httpx2.get(begun.headers["location"]).headers["location"]
    assert client.get(back).status_code == 303
    client.cookies.clear()
    assert client.get(back).status_code == 401


def test_a_changed_cookie_is_no_session(client):
    sign_in(client)
    value = client.cookies["lcia_session"]
    client.cookies.clear()
    client.cookies.set("lcia_session", value[:-2] + ("aa" if value[-2:] != "aa" else "bb"))
    assert client.get("/v1/status").status_code == 401


def test_cookies_are_kept_from_scripts_and_other_sites(client):
    begun = client.get("/login")
    cookie = begun.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_a_provider_that_is_away_is_said(fresh):
    instance = fresh.open("serve.issuer=http://127.0.0.1:9", "serve.address=http://testserver")
    client = TestClient(make_app(instance, ENVIRONMENT), follow_redirects=False)
    refused = client.get("/login")
    assert refused.status_code == 401
    assert "does not answer" in refused.json()["message"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "LCIA_SESSION_SECRET has 0 characters"),
        ({"LCIA_SESSION_SECRET": "short"}, "has 5 characters"),
        ({"LCIA_SESSION_SECRET": "s" * 40}, "LCIA_OIDC_SECRET is not"),
    ],
)
def test_secrets_that_are_missing_are_said_at_the_start(instance, environment, words):
    with pytest.raises(ServeRefused, match=words):
        make_app(instance, environment)


def told(instance, action):
    with instance.db.read() as connection:
        return [entry for entry in log.entries(connection) if entry.action == action]


def test_what_is_granted_to_a_name_is_not_for_the_stranger_who_took_it(client, instance, provider):
    """A stranger signs in first as bob; an admin who means another bob grants by name."""
    provider.claims = {"sub": "666", "preferred_username": "bob"}
    sign_in(client)
    with (
        instance.db.begin() as connection,
        pytest.raises(PersonRefused, match=r"bob signs in as .*\|666 and chose that"),
    ):
        appointments.appoint(connection, "bob", "approver", actor=ROOT)
    assert client.get("/v1/status").status_code == 403
    client.cookies.clear()
    provider.claims = {"sub": "42", "preferred_username": "bob"}
    sign_in(client)
    with instance.db.begin() as connection:
        found, _ = appointments.appoint(connection, f"{provider.issuer}|42", "engineer", actor=ROOT)
    assert found.name == "bob (2)"
    assert client.get("/v1/status").status_code == 200


def test_the_documented_command_connects_a_name_with_an_account(client, instance, provider, fresh, capsys, monkeypatch):
    with instance.db.begin() as connection:
        people.add(connection, "bob", actor=SYSTEM)
        people.grant(connection, "bob", "engineer", actor=SYSTEM)
    refused = sign_in(client)
    assert refused.status_code == 401
    command = re.search(r"`lcia (people add [^`]+)`", refused.json()["message"])[1]
    monkeypatch.chdir(fresh.config.parent)
    monkeypatch.setenv("LCIA_HOME", str(fresh.home))
    monkeypatch.setattr("sys.argv", ["lcia", *shlex.split(command)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    assert f"signs in as {provider.issuer}|42" in capsys.readouterr().out
    assert sign_in(client).status_code == 303
    assert client.get("/v1/status").status_code == 200
    assert told(instance, "person.connected")[0].details["subject"] == f"{provider.issuer}|42"


def test_groups_of_the_provider_give_roles_at_each_sign_in_and_take_them_back(fresh, provider):
    settings = yaml.safe_load(fresh.config.read_text())
    settings["serve"] = {"groups": {"crew": [{"role": "engineer"}], "north": [{"role": "approver", "site": "north"}]}}
    fresh.config.write_text(yaml.safe_dump(settings))
    instance = fresh.open(f"serve.issuer={provider.issuer}", "serve.address=http://testserver")
    client = TestClient(make_app(instance, ENVIRONMENT), follow_redirects=False)
    provider.claims |= {"groups": ["crew", "north", "others"]}
    sign_in(client)
    with instance.db.begin() as connection:
        grants = people.get(connection, "bob").grants
        people.grant(connection, "bob", "auditor", actor=SYSTEM)
    assert {(one.role, one.site) for one in grants} == {("engineer", "*"), ("approver", "north")}
    assert client.get("/v1/status").status_code == 200
    assert {entry.details["group"] for entry in told(instance, "role.granted")[:2]} == {"crew", "north"}
    provider.claims["groups"] = "crew"  # some providers tell one group as a text
    sign_in(client)
    with instance.db.read() as connection:
        grants = people.get(connection, "bob").grants
    assert {(one.role, one.site) for one in grants} == {("engineer", "*"), ("auditor", "*")}
    for nothing in (None, {"crew": 1}, 7):
        provider.claims["groups"] = nothing
        assert sign_in(client).status_code == 303
    with instance.db.read() as connection:
        assert [one.role for one in people.get(connection, "bob").grants] == ["auditor"]
