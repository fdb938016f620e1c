"""The page that says which task would answer a request."""

import pytest

from tests.console.conftest import Visitor, words


@pytest.fixture(scope="module")
def auditor(shown) -> Visitor:
    return Visitor(shown, "auditor")


def test_it_says_where_a_request_goes_and_why(auditor, shown):
    pool = shown.instance.pool(shown.instance.champion().digest)
    entry = pool.groups[0].tasks[0]
    page = words(auditor.post("/route", instruction=entry.instructions[0], input="a text").text)
    assert f"{entry.name} (g1)" in page
    assert "word by word" in page
    foreign = words(auditor.post("/route", instruction="What is the boiling point of ethanol?").text)
    assert "No task: the base model answers" in foreign
    assert "Threshold" in foreign


def test_texts_come_back_harmless_and_are_not_kept(auditor, shown):
    html = auditor.post("/route", instruction="<script>alert(1)</script>", version="1").text
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert b"alert(1)" not in b"".join(f.read_bytes() for f in shown.instance.home.rglob("*.log") if f.is_file())


@pytest.mark.parametrize("fields", [{"instruction": ""}, {"instruction": "a", "version": "99"}])
def test_what_can_not_be_routed_is_refused_on_the_page(auditor, fields):
    answer = auditor.post("/route", **fields)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_the_page_to_try_versions_leads_there(auditor):
    assert 'href="/route"' in auditor.get("/try").text
    assert "Where a request goes" in auditor.page("/route")
