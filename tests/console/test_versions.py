"""The page of all versions: what stands where, and the way back."""

from sqlalchemy import insert

from components.storage.database import now
from components.storage.tables import candidates
from lcia.console.tables import PAGE


def _beside(server, number: int, parent: str | None, **other: object) -> None:
    """A version that ended, in the database alone: rejected or overtaken ones have no more than that."""
    with server.instance.db.begin() as connection:
        moment = now(connection)
        values = {
            "digest": f"{number:064x}", "assistant": server.instance.assistant, "number": number, "state": "rejected",
            "reason": "no", "task": "0" * 64, "task_name": f"task{number}@1", "parent": parent, "evidence": "0" * 64,
            "verdict": "fail", "attempt": 1, "submitted_by": "site", "launched_by": "site", "item": None, "marks": [],
            "created_at": moment, "changed_at": moment,
        }  # fmt: skip
        connection.execute(insert(candidates).values(**{**values, **other}))


def test_versions_stand_newest_first_with_state_gate_and_who_decided(shown, visit) -> None:
    page = visit(shown, "auditor").page("/versions")
    assert "In use: version 3, which learnt passive_voice@1 last." in page
    assert "earlier champion: 2" in page
    assert page.index("passive_voice@1 ", 200) < page.index("movie_sentiment@1")
    assert "ops" in page


def test_hostile_names_are_text(serve, champion, visit) -> None:
    server = serve(champion)
    hostile = "<script>alert(1)</script>"
    _beside(server, 4, server.instance.champion().digest, task_name=hostile, marks=[hostile])
    html = visit(server, "approver").get("/versions").text
    assert hostile not in html
    assert "&lt;script&gt;alert(1)" in html


def test_the_graph_is_drawn_only_where_the_rows_stand_as_it_was_drawn(shown, visit) -> None:
    reader = visit(shown, "approver")
    assert reader.get("/versions").text.count('class="lanes"') == 3
    for changed in ("?versions.sort=number", "?versions.text=passive", "?versions.state=champion"):
        assert 'class="lanes"' not in reader.get(f"/versions{changed}").text


def test_pages_read_no_object_however_many_versions_there_are(serve, champion, visit, monkeypatch) -> None:
    server = serve(champion)
    parent = server.instance.champion().digest
    for number in range(4, 4 + 2 * PAGE):
        _beside(server, number, parent)
    reader = visit(server, "approver")
    monkeypatch.setattr(type(server.instance.store), "get", lambda *_: 1 / 0)
    page = reader.page("/versions?versions.page=2")
    assert f"Page 2 of 3, {3 + 2 * PAGE} rows" in page
    assert "task28@1" in page
    assert "task29@1" not in page


def test_rolling_back_is_offered_to_those_who_may_and_only_to_earlier_champions(serve, champion, visit) -> None:
    server = serve(champion)
    _beside(server, 4, server.instance.champion().digest)
    assert "Go back to an earlier version" not in visit(server, "auditor").page("/versions")
    approver = visit(server, "approver")
    choices = approver.get("/versions").text.split('<select name="version"')[1].split("</select>")[0]
    assert [f'value="{number}"' in choices for number in (1, 2, 3, 4)] == [True, True, False, False]
    sent = approver.post("/do/rollback", version="1", reason="slower answers", back="/versions")
    assert sent.status_code == 303
    page = approver.page("/versions")
    assert "Version 1 is the champion again." in page
    assert "by rollback" in page
    assert server.instance.champion().number == 1


def test_rolling_back_to_what_never_was_champion_is_refused_in_words(serve, champion, visit) -> None:
    server = serve(champion)
    _beside(server, 4, server.instance.champion().digest, digest=server.instance.champion().digest[:60] + "0000")
    got = visit(server, "approver").post("/do/rollback", version="4", reason="try", back="/versions")
    assert got.status_code == 400
    assert server.instance.champion().number == 3
    assert visit(server, "submitter").post("/do/rollback", version="1", reason="x").status_code == 403


def test_before_the_first_version_the_page_says_so(serve, fresh, visit) -> None:
    page = visit(serve(fresh), "approver").page("/versions")
    assert "There is no version yet" in page
    assert "Go back" not in page


def test_a_withdrawn_yes_is_not_shown_as_a_decision(serve, pending, visit) -> None:
    server = serve(pending, "policy.approval.quorum=2")
    for name, reason in (("approve", "yes"), ("revoke", "no, wait")):
        assert server.ask("approver", name, version="1", reason=reason).status_code == 200
    row = visit(server, "auditor").get("/versions").text.split("<tbody>")[1]
    assert "approver" not in row
    assert "waiting for approval" in row
