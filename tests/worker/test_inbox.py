"""Packages dropped into an inbox: taken once, put away with a report, learnt."""

import json
import shutil

import pytest
from small_loop import SITE, SmallLoop, rewrite_row, write_package

from components.promotion import candidates, quorum
from components.tasks import inbox as arrivals
from components.tasks import queue
from lcia.operations import status
from lcia.operations.params import AnswerParams
from lcia.operations.table import OPERATIONS
from lcia.worker import inbox as incoming
from lcia.worker import loop


def test_packages_are_taken_once_and_put_away(champion: SmallLoop, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = tmp_path / "inbox"
    for name, first, version in (("good", 40, "2"), ("taken", 60, "1"), ("broken", 60, "3")):
        made = write_package(tmp_path / name, "movie_sentiment", first=first, version=version)
        inbox.mkdir(exist_ok=True)
        made.rename(inbox / name)
    rewrite_row(inbox / "broken" / "test.jsonl", output="maybe")
    (inbox / "links").mkdir()
    (inbox / "links" / "task.yaml").symlink_to("/etc/passwd")
    instance = champion.open(f"inbox.url={inbox}", "inbox.quiet_seconds=0")
    before = status.status(instance)["queue"]["items"]

    # the machine stops between taking and putting away: it is known the next time
    with monkeypatch.context() as patched:
        patched.setattr(arrivals.FolderInbox, "put_away", _dies)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                incoming.take(instance)
    shutil.copytree(inbox / "good", inbox / "good_again")

    touched = loop.work(instance, SITE, print)
    assert [(item.name, item.version, item.state) for item in touched] == [("movie_sentiment", "2", "candidate")]
    items = status.status(instance)["queue"]["items"]
    assert len(items) == len(before) + 1
    assert items[-1]["submitted_by"] == "inbox"
    assert sorted(p.name for p in inbox.iterdir()) == ["done", "refused"]
    assert {p.name for p in (inbox / "done").iterdir() if p.is_dir()} == {"good", "good_again"}
    refused = {p.name: json.loads((inbox / "refused" / f"{p.name}.report.json").read_text())
               for p in (inbox / "refused").iterdir() if p.is_dir()}  # fmt: skip
    assert refused.keys() == {"broken", "links", "taken"}
    assert "choices" in json.dumps(refused["broken"])
    assert "already known with other content" in json.dumps(refused["taken"])
    report = json.loads((inbox / "done" / "good_again.report.json").read_text())
    assert (report["item"], report["known"]) == (items[-1]["id"], True)


def test_an_inbox_of_one_owner_takes_no_others(champion: SmallLoop, tmp_path) -> None:
    inbox = tmp_path / "inbox"
    write_package(inbox, "grammar_check")
    instance = champion.open(f"inbox.url={inbox}", "inbox.quiet_seconds=0", "inbox.owner=north")
    assert incoming.take(instance) == []
    assert "whose inbox this is" in (inbox / "refused" / "grammar_check.report.json").read_text()


def test_each_site_has_an_inbox_of_its_own_and_speaks_for_itself_alone(champion: SmallLoop, tmp_path) -> None:
    for site in ("demo", "north"):
        write_package(tmp_path / site, "grammar_check", owner="demo")
    instance = champion.open(
        f"inbox.sites={{demo: {tmp_path}/demo, north: {tmp_path}/north, away: {tmp_path}/away}}",
        "inbox.quiet_seconds=0",
    )
    said: list[str] = []
    (item,) = incoming.take(instance, said.append)
    assert (item.owner, item.submitted_by) == ("demo", "inbox of demo")
    assert "north, whose inbox this is" in (tmp_path / "north/refused/grammar_check.report.json").read_text()
    assert "the inbox of away can't be used" in said[0]


def test_a_task_of_the_inbox_that_replaces_another_waits_for_a_person(champion: SmallLoop, tmp_path) -> None:
    inbox = tmp_path / "inbox"
    write_package(inbox, "movie_sentiment", first=40, version="9", supersedes="movie_sentiment@1")
    instance = champion.open(f"inbox.url={inbox}", "inbox.quiet_seconds=0")
    (item,) = incoming.take(instance)
    assert item.state == "held"
    assert "it would replace movie_sentiment@1" in item.reason
    assert loop.work(instance, SITE, print) == []
    OPERATIONS["release"].run(instance, SITE, AnswerParams(item=item.id, reason="asked them"))
    with instance.db.read() as connection:
        freed = queue.item(connection, item.id)
    assert (freed.state, freed.answers) == ("submitted", {})


def test_what_came_through_an_inbox_needs_one_more_person(champion: SmallLoop, tmp_path) -> None:
    """Whoever put it there may be an approver: four eyes can't tell, so it takes one approval more."""
    inbox = tmp_path / "inbox"
    write_package(inbox, "grammar_check")
    instance = champion.open(f"inbox.url={inbox}", "inbox.quiet_seconds=0", "policy.approval.auto=true")
    (item,) = loop.work(instance, SITE, print)
    assert item.state == "candidate"  # not promoted automatically
    with instance.db.read() as connection:
        version = candidates.versions(connection, instance.assistant, "pending")[-1]
    assert candidates.SENDER_UNKNOWN in version.marks
    rules = instance.settings.policy.approval
    assert quorum.quorum_at(version, rules, item.owner) == rules.quorum + 1
    assert quorum.quorum_at(version, rules.model_copy(update={"unknown_sender": 0}), item.owner) == rules.quorum
    with instance.db.read() as connection, pytest.raises(quorum.QuorumMissing, match="0 of 2 approvals"):
        quorum.need_quorum(connection, version, rules)


def _dies(*_: object) -> str:
    raise KeyboardInterrupt
