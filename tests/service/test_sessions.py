"""Sign-ins of browsers: a copy of a cookie counts no longer than the sign-in that it is of."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from components.identity import sessions
from components.storage import tables


@pytest.fixture
def server(serve, fresh):
    return serve(fresh)


def stolen(server, name: str) -> str:
    """Sign in as somebody and copy the cookie."""
    server.sign_in(name)
    return server.client.cookies["lcia_session"]


def reads(server, cookie: str) -> int:
    """Status of a look with a cookie and nothing else."""
    server.client.cookies.clear()
    server.client.cookies.set("lcia_session", cookie)
    return server.client.get("/v1/status", headers={"accept": "application/json"}).status_code


def test_a_copied_cookie_ends_with_the_sign_out(server):
    cookie = stolen(server, "approver")
    assert reads(server, cookie) == 200
    csrf = server.sign_in("approver")  # another sign-in of the same person
    other = server.client.cookies["lcia_session"]
    assert server.client.post("/sign-out", data={"csrf": csrf}, follow_redirects=False).status_code == 303
    assert (reads(server, other), reads(server, cookie)) == (401, 200)
    server.client.cookies.clear()
    server.client.cookies.set("lcia_session", cookie)
    assert server.client.post("/logout").status_code == 204
    assert reads(server, cookie) == 401
    back = server.client.get("/", headers={"accept": "text/html"}, follow_redirects=True)
    assert str(back.url).endswith("/login/token"), "and no circle"


def test_a_sign_in_ends_after_its_hours_whatever_the_cookie_says(server):
    cookie = stolen(server, "approver")
    with server.instance.db.begin() as connection:
        ends = connection.execute(select(tables.sessions.c.ends_at)).scalar_one()
        connection.execute(tables.sessions.update().values(ends_at=ends - timedelta(hours=12)))
    assert reads(server, cookie) == 401
    stolen(server, "approver")
    with server.instance.db.read() as connection:
        assert connection.execute(select(func.count()).select_from(tables.sessions)).scalar_one() == 1, "old ones go"


def test_a_sign_in_is_one_persons(server):
    with server.instance.db.begin() as connection:
        text = sessions.begin(connection, "approver", timedelta(hours=1))
        assert sessions.stands(connection, text, "approver")
        assert not sessions.stands(connection, text, "admin")
        assert not sessions.stands(connection, "", "approver")
        assert text not in str(connection.execute(select(tables.sessions)).all()), "the database has a hash"
