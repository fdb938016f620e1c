"""The pages of wordings: who sees which, what they offer, and that a change goes the way of every candidate."""

import pytest

from lcia.operations import wordings
from tests.console.conftest import Visitor, words

NEW = "Thumbs up or thumbs down <b>for</b> this one?"


@pytest.fixture(scope="module")
def task(shown):
    return wordings.learnt_tasks(shown.instance)[0]


@pytest.fixture(scope="module")
def submitter(shown) -> Visitor:
    return Visitor(shown, "submitter")


def test_it_lists_the_tasks_that_the_reader_may_change(submitter, shown, task):
    assert f'href="/wordings/{task.label.replace("@", "%40")}"' in submitter.get("/wordings").text
    assert task.label not in Visitor(shown, "auditor").page("/wordings")
    Visitor(shown, "auditor").get(f"/wordings/{task.label}", 403)


def test_wordings_are_added_proposed_accepted_and_declined(submitter, shown, task):
    page = f"/wordings/{task.label}"
    text = task.entry.instructions[0]
    assert text[:30] in words(submitter.get(page).text)
    submitter.post("/do/change-wordings", task=task.label, add=f"{NEW}\n\n  Is it worth it?  ", back=page)
    shown_items = [item for item in _items(shown) if item.is_change]
    assert shown_items[-1].label == f"{task.label}+wordings.{len(shown_items)}"
    change = shown.instance.store.get_json(shown_items[-1].package)
    assert change["add"] == [NEW, "Is it worth it?"]
    wordings.propose(shown.instance, _actor(), task.label, ["One <i>way</i>", "Another way"])
    html = submitter.get(page).text
    assert "One &lt;i&gt;way&lt;/i&gt;" in html
    first, second = wordings.wordings(shown.instance, task.label)["proposals"]
    submitter.post("/do/answer-wordings", numbers=str(first["id"]), accept="false", back=page)
    submitter.post("/do/answer-wordings", numbers=f"{second['id']}\n", accept="true", back=page)
    assert wordings.wordings(shown.instance, task.label)["proposals"] == []
    assert shown.instance.store.get_json(_items(shown)[-1].package)["add"] == ["Another way"]


def test_a_refused_change_says_why(submitter, task):
    answer = submitter.post("/do/change-wordings", task=task.label, add=task.entry.instructions[0], back="/wordings")
    assert "already" in words(answer.text)


def test_several_values_are_one_a_line():
    from lcia.console.forms import parameters

    assert parameters("answer-wordings", {"numbers": "3\r\n4\n", "accept": "true"}) == {
        "numbers": ["3", "4"],
        "accept": True,
    }


def _items(shown):
    from components.tasks import queue

    with shown.instance.db.read() as connection:
        return queue.items(connection, shown.instance.assistant)


def _actor():
    from components.audit.log import Actor

    return Actor("a model's friend", assured=False, how="asserted")


def test_the_pages_of_such_a_version_and_its_item_say_that_nothing_was_learnt(champion, serve, visit):
    """On a state of its own, as the version is promoted."""
    from lcia.worker import loop

    instance = champion.open()
    item = wordings.change(instance, _actor(), "movie_sentiment", add=["Thumbs up?"])
    loop.work(instance, _actor(), lambda _: None)
    server = serve(champion)
    visitor = visit(server, "submitter")
    page = visitor.page("/versions/4")
    assert "changes the wordings of movie_sentiment@1 and learnt nothing" in page
    assert "Thumbs up?" in page
    assert "How it was tuned" not in page
    assert "movie_sentiment" in visitor.page(f"/tasks/{item['id']}")
    server.ask("approver", "approve", version="4", reason="read")
    assert "changed the wordings of movie_sentiment@1" in visitor.page("/versions")
    assert "Thumbs up?" in visitor.page("/compare?v=3&v=4")
    assert "Thumbs up?" in visitor.page("/wordings/movie_sentiment")
    assert visitor.page("/")
    assert visitor.page("/numbers")
