"""The log's pages: who reads them, what filters find, and what is taken along holds elsewhere."""

import re

import pytest
from sqlalchemy import update
from tampering import tamper

from components.audit import browsing, log
from components.audit.keys import read_head
from components.audit.log import Actor
from components.audit.proofs import check
from components.audit.verify import verify_export
from components.storage.tables import log as table
from lcia.console.labels import NAMES
from lcia.console.views import log as pages


def test_only_those_who_may_audit_read_it(shown, visit) -> None:
    for name in ("submitter", "engineer"):
        reader = visit(shown, name)
        for path in ("/log", "/log/3", "/log/3/proof", "/log/verify", "/log/head", "/log/3.jsonl", "/log/3.jsonl.head"):
            reader.get(path, 403)
        assert 'href="/log"' not in reader.get("/").text
    visit(shown, "auditor").get("/log")


def test_entries_stand_newest_first_with_words_and_how_sure_the_name_is(shown, visit) -> None:
    html = visit(shown, "auditor").get("/log?kind=candidate.approved").text
    assert [int(n) for n in re.findall(r'<a href="/log/(\d+)">', html)] == sorted(
        (e.index for e in _entries(shown) if e.action == "candidate.approved"), reverse=True
    )
    assert "version approved" in html
    assert html.count(">asserted<") == 3  # the loop's people are names alone
    assert 'href="/versions/3"' in html


def test_every_action_in_a_real_log_has_words(shown) -> None:
    assert {entry.action for entry in _entries(shown)} <= set(NAMES)


def test_filters_work_together_and_bad_days_are_refused(shown, visit) -> None:
    reader = visit(shown, "auditor")
    page = reader.page("/log?person=OPS&kind=champion&since=2020-01-01&until=2999-12-31")
    assert page.count("champion promoted") == 3 + 1  # and once among the choices
    assert "No matches." in reader.page("/log?until=2020-01-01")
    assert "No matches." in reader.page("/log?since=2999-01-01")
    assert "'tomorrow' is no day, expected one such as 2026-01-31" in reader.page("/log?since=tomorrow", 400)


def test_older_entries_are_a_page_on_and_work_is_bounded(serve, champion, visit, monkeypatch) -> None:
    server = serve(champion)
    with server.instance.db.begin() as connection:
        for number in range(120):
            log.append(connection, "person.signed_in", Actor(f"p{number}", assured=True), f"p{number}")
    reader = visit(server, "auditor")
    seen: list[int] = []
    path = "/log"
    while path:
        html = reader.get(path).text
        seen += [int(n) for n in re.findall(r'<td class="n"><a href="/log/(\d+)">', html)]
        older = re.search(r'<a href="(/log\?before=\d+)" rel="next"', html)
        path = older[1] if older else ""
    assert seen == list(range(len(_entries(server)) - 1, -1, -1))
    monkeypatch.setattr(browsing, "BATCH", 10)
    monkeypatch.setattr(browsing, "MOST", 20)
    page = reader.page("/log?person=site")
    assert "No matches so far" in page
    assert "Look further back" in page


def test_one_entry_shows_its_very_bytes_and_its_proof_holds_offline(shown, visit) -> None:
    reader = visit(shown, "auditor")
    entry = next(one for one in _entries(shown) if one.action == "champion.promoted")
    page = reader.page(f"/log/{entry.index}")
    with shown.instance.db.read() as connection:
        _, body = browsing.entry(connection, entry.index)
    assert body.decode() in page
    assert entry.hash in page
    assert entry.root in page
    proof = reader.get(f"/log/{entry.index}/proof")
    assert "attachment" in proof.headers["content-disposition"]
    shown_entry = check(proof.content, shown.instance.signing_key().public).entry
    assert shown_entry is not None
    assert shown_entry["index"] == entry.index
    assert "the log has no entry 99999" in reader.page("/log/99999", 400)


def test_what_is_downloaded_verifies_offline_though_the_log_grew_meanwhile(shown, visit, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pages, "LINES", 7)
    reader = visit(shown, "auditor")
    size = int(re.search(r'href="/log/(\d+)\.jsonl"', reader.get("/log").text)[1])
    with shown.instance.db.begin() as connection:
        log.append(connection, "person.signed_in", Actor("late", assured=True), "late")
    file = tmp_path / "log.jsonl"
    file.write_bytes(reader.get(f"/log/{size}.jsonl").content)
    (tmp_path / "log.jsonl.head").write_bytes(reader.get(f"/log/{size}.jsonl.head").content)
    found = verify_export(file, shown.instance.signing_key().public)
    assert (found.ok, found.entries) == (True, size), found
    reader.get("/log/99999.jsonl", 400)


def test_the_signed_head_is_a_head_file(shown, visit) -> None:
    got = visit(shown, "auditor").get("/log/head")
    assert read_head(got.content, None).entries == len(_entries(shown))


def test_checking_says_in_words_what_was_found(serve, champion, visit) -> None:
    server = serve(champion)
    reader = visit(server, "auditor")
    good = reader.client.get("/log/verify", headers={"hx-request": "true"}).text
    assert f"All {len(_entries(server))} entries are good" in good
    assert "<html" not in good
    assert "<html" in reader.get("/log/verify").text
    wrong = update(table).where(table.c.position == 4).values(body=b"{}")
    tamper(server.instance.db, wrong)
    page = reader.page("/log/verify")
    assert "The log was tampered with." in page
    assert "entry 4 of the database is bad" in page


def test_hostile_names_and_reasons_are_text(serve, champion, visit) -> None:
    server = serve(champion)
    hostile = '"><script>alert(1)</script>'
    with server.instance.db.begin() as connection:
        made = log.append(connection, hostile, Actor(hostile, assured=False), hostile, {"reason": hostile})
    reader = visit(server, "auditor")
    for path in ("/log", f"/log/{made.index}", "/log?person=" + "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"):
        html = reader.get(path).text
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert(1)" in html


def _entries(server) -> list[log.Entry]:
    with server.instance.db.read() as connection:
        return log.entries(connection)


@pytest.mark.parametrize("path", ["/log?before=x", "/log?before=-5", "/log?before=99999999999999"])
def test_an_odd_position_shows_the_newest(shown, visit, path: str) -> None:
    assert f'/log/{len(_entries(shown)) - 1}"' in visit(shown, "auditor").get(path).text
