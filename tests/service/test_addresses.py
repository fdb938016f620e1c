"""Whom requests come from, and that nobody is locked out by what others got wrong."""

import pytest
from starlette.requests import Request

from components.settings import ServeSettings, SettingsError, load_settings
from lcia.service.addresses import MOST, Addresses, Failures

PROXY, CLIENT, EVIL = "10.0.0.7", "198.51.100.4", "203.0.113.66"
TRUSTING = {"trusted_proxies": ("10.0.0.0/8", "fd00::/8")}


def seen(peer: str, *lines: str, header: str = "x-forwarded-for", **settings: object) -> str:
    """The address of a request from `peer` with these lines of a header."""
    scope = {"type": "http", "client": (peer, 1), "headers": [(header.encode(), line.encode()) for line in lines]}
    return Addresses(ServeSettings(**{**TRUSTING, **settings})).of(Request(scope))


@pytest.mark.parametrize(
    ("peer", "lines", "expected"),
    [
        (CLIENT, (), CLIENT),
        (EVIL, (CLIENT,), EVIL),  # nobody trusts it
        (PROXY, (CLIENT,), CLIENT),
        (PROXY, (f"{EVIL}, {CLIENT}",), CLIENT),  # what it wrote itself stands left of what the proxy wrote
        (PROXY, (EVIL, CLIENT), CLIENT),  # in a line of its own, too
        (PROXY, (f"{CLIENT}, 10.1.1.1",), CLIENT),  # two proxies
        (PROXY, (f"{EVIL}, {CLIENT}, 10.1.1.1",), CLIENT),
        (PROXY, ("10.1.1.1",), "10.1.1.1"),  # a client inside
        (PROXY, ("unknown",), PROXY),
        (PROXY, (f"{CLIENT}, garbage",), PROXY),
        (PROXY, (f"{CLIENT}:5555",), CLIENT),
        (PROXY, ("[2001:db8:1:2:3::9]:443",), "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", (), "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.7", (CLIENT,), CLIENT),  # a proxy on a socket for both
        ("testclient", (CLIENT,), "testclient"),
    ],
)
def test_the_nearest_address_that_is_not_trusted_counts(peer, lines, expected):
    assert seen(peer, *lines) == expected


def test_the_other_header_is_not_believed():
    """A proxy that writes one hands the other on as the client sent it."""
    assert seen(PROXY, f"for={EVIL}", header="forwarded") == PROXY
    told = {"header": "forwarded", "proxy_header": "forwarded"}
    assert seen(PROXY, f'for={EVIL};proto=https, for="{CLIENT}:80";by=10.0.0.1', **told) == CLIENT
    assert seen(PROXY, f'for="{EVIL},for={EVIL}", FOR={CLIENT}', **told) == CLIENT
    assert seen(PROXY, 'for="[2001:db8:1:2::9]:1"', **told) == "2001:db8:1:2::/64"
    assert seen(PROXY, CLIENT, header="x-forwarded-for", proxy_header="forwarded") == PROXY


def test_a_network_that_is_none_is_refused(tmp_path):
    (tmp_path / "zenml.yaml").write_text("serve: {trusted_proxies: [my-proxy]}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"my-proxy.*10\.0\.0\.0/8"):
        load_settings(tmp_path / "zenml.yaml", home_folder=tmp_path)


def test_memory_of_failures_is_bounded():
    failures = Failures("2/minute", most=100)
    assert [failures.hit("a") for _ in range(4)] == [True, True, False, False]
    assert all(failures.hit(f"b{number}") for number in range(100))
    assert len(failures._times) == 100
    assert failures.hit("a"), "forgotten, with those that failed longest ago"
    assert MOST < 100_000


def bad_tokens(server, count: int) -> list[int]:
    """Statuses of guessed tokens, all from one address."""
    heads = {"authorization": "Bearer lcia_0123456789ab_guessed"}
    return [server.client.get("/v1/status", headers=heads).status_code for _ in range(count)]


def test_whoever_says_who_they_are_is_not_held_up_by_others_failures(serve, fresh):
    server = serve(fresh, "serve.failure_rate=3/minute")
    assert bad_tokens(server, 5) == [401, 401, 401, 429, 429]
    assert server.ask("submitter", "status").status_code == 200
    server.sign_in("approver")
    assert server.client.get("/", headers={"accept": "text/html"}, follow_redirects=False).status_code == 200
