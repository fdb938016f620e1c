"""People, roles and tokens; a token's text is on one page alone."""

import base64
import re

from components.audit import log
from components.identity import people


def test_only_admins_see_it(shown, visit) -> None:
    for name in ("submitter", "engineer", "approver", "auditor"):
        visit(shown, name).get("/people", 403)
    page = visit(shown, "admin").page("/people")
    assert "submitter may sign in submitter" in page


def test_somebody_is_added_given_a_role_that_is_taken_back_and_shut_out(serve, fresh, visit) -> None:
    server = serve(fresh)
    admin = visit(server, "admin")
    assert admin.post("/do/add-person", person="Zoe", subject="").status_code == 303
    assert "Zoe may sign in, and has no role yet." in admin.page("/people")
    assert "Zoe has no role" in admin.page("/people")
    admin.post("/do/grant", person="Zoe", role="approver", site="reviews")
    assert "approver (reviews)" in admin.page("/people")
    admin.post("/do/grant", person="Zoe", role="approver", site="reviews", take_back="true")
    assert "approver (reviews)" not in admin.page("/people")
    admin.post("/do/disable-person", person="Zoe", reason="left")
    assert "Zoe shut out" in admin.page("/people")
    with server.instance.db.read() as connection:
        assert people.get(connection, "Zoe").disabled_at is not None


def test_the_last_admin_stays(serve, fresh, visit) -> None:
    got = visit(serve(fresh), "admin").post("/do/disable-person", person="admin", reason="oops")
    assert got.status_code == 400
    assert "the last admin" in got.text


def test_the_text_of_a_token_is_shown_once_and_kept_nowhere(serve, fresh, visit) -> None:
    server = serve(fresh)
    admin = visit(server, "admin")
    made = admin.post("/people/token", person="submitter", label="nightly <b>", days="7", permissions="submit")
    assert made.status_code == 200
    text = re.search(r"lcia_[0-9a-f]{12}_[\w-]+", made.text)[0]
    assert made.headers["cache-control"] == "no-store"
    assert "nightly &lt;b&gt;" in made.text
    secret = text.split("_", 2)[2]
    cookies = " ".join(f"{name}={value}" for name, value in admin.client.cookies.items())
    session = base64.b64decode(admin.client.cookies["lcia_session"].split(".")[0] + "==").decode()
    assert secret not in cookies + session
    with server.instance.db.read() as connection:
        entries = log.entries(connection)
    assert entries[-1].action == "token.created"
    assert secret not in repr(entries)
    assert secret not in admin.get("/people").text
    got = server.client.get("/v1/status", headers={"authorization": f"Bearer {text}"})
    assert got.status_code == 403  # limited to `submit`


def test_a_token_needs_the_form_and_the_right(serve, fresh, visit) -> None:
    server = serve(fresh)
    fields = {"person": "admin", "label": "x", "days": "7"}
    admin = visit(server, "admin")
    assert admin.client.post("/people/token", data={**fields, "csrf": "other"}).status_code == 400
    assert visit(server, "approver").post("/people/token", **fields).status_code == 403
    assert admin.post("/people/token", **{**fields, "days": "5000"}).status_code == 400
    assert admin.post("/people/token", **{**fields, "person": "nobody"}).status_code == 400
    with server.instance.db.read() as connection:
        assert [entry for entry in log.entries(connection) if entry.subject == "admin"][-1].action != "token.created"


def test_a_token_is_revoked(serve, fresh, visit) -> None:
    server = serve(fresh)
    admin = visit(server, "admin")
    identity = server.tokens["engineer"].split("_")[1]
    assert f'value="{identity}"' in admin.get("/people").text
    assert admin.post("/do/revoke-token", token=identity, reason="lost").status_code == 303
    assert "The token is revoked." in admin.page("/people")
    assert f'value="{identity}"' not in admin.get("/people").text
    assert server.ask("engineer", "status").status_code == 401


def test_hostile_names_are_text(serve, fresh, visit) -> None:
    admin = visit(serve(fresh), "admin")
    admin.post("/do/add-person", person="<script>alert(1)</script>", subject='https://idp|"><img src=x>')
    html = admin.get("/people").text
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_a_role_that_decides_is_proposed_and_accepted_by_another_admin(serve, fresh, visit) -> None:
    server = serve(fresh)
    server.person("second", "admin")
    admin = visit(server, "admin")
    admin.post("/do/add-person", person="Zoe", subject="https://idp|zoe")
    refused = admin.post("/do/grant", person="https://idp|zoe", role="approver", site="*")
    assert "needs a reason" in refused.text
    admin.post("/do/grant", person="https://idp|zoe", role="approver", site="*", reason="knows the data")
    page = admin.page("/people")
    assert "another admin has to accept it" in page
    assert "https://idp|zoe" in page
    second = visit(server, "second")
    assert "A role or account (Zoe)" in second.page("/")
    second.post("/do/answer-grant", proposal="1", accept="true", reason="agreed")
    assert "Zoe may sign in approver" in second.page("/people")


def test_everybody_makes_and_ends_their_own_tokens(serve, fresh, visit) -> None:
    server = serve(fresh)
    auditor = visit(server, "auditor")
    made = auditor.post("/people/token", person="auditor", label="laptop", days="7")
    assert re.search(r"lcia_[0-9a-f]{12}_[\w-]+", made.text)
    page = auditor.get("/tokens").text
    assert "laptop" in page
    identity = re.search(r"lcia_([0-9a-f]{12})_", made.text)[1]
    assert auditor.post("/do/revoke-token", token=identity, reason="lost", back="/tokens").status_code == 303
    assert auditor.post("/people/token", person="admin", label="x", days="7").status_code == 403
