"""Packages dropped into an inbox: taken once, put away with a report, learnt."""

import json
import shutil

import pytest
from small_loop import SITE, SmallLoop, rewrite_row, write_package

from components.tasks import arrivals
from lcia import arrivals as incoming
from lcia import verbs, worker


def test_packages_are_taken_once_and_put_away(champion: SmallLoop, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = tmp_path / "inbox"
    for name, first, version in (("good", 40, "2"), ("taken", 60, "1"), ("broken", 60, "3")):
        made = write_package(tmp_path / name, "movie_sentiment", first=first, version=version)
        inbox.mkdir(exist_ok=True)
        made.rename(inbox / name)
    rewrite_row(inbox / "broken" / "test.jsonl", output="maybe")
    (inbox / "links").mkdir()
    (inbox / "links" / "task.yaml").symlink_to("/etc/passwd")
    place = champion.open(f"inbox.url={inbox}", "inbox.quiet_seconds=0")
    before = verbs.status(place)["queue"]["items"]

    # the machine stops between taking and putting away: it is known the next time
    with monkeypatch.context() as patched:
        patched.setattr(arrivals.FolderInbox, "put_away", _dies)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                incoming.take(place)
    shutil.copytree(inbox / "good", inbox / "good_again")

    touched = worker.work(place, SITE, print)
    assert [(item.name, item.version, item.state) for item in touched] == [("movie_sentiment", "2", "candidate")]
    items = verbs.status(place)["queue"]["items"]
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
    place = champion.open(f"inbox.url={inbox}", "inbox.quiet_seconds=0", "inbox.owner=north")
    assert incoming.take(place) == []
    assert "whose inbox this is" in (inbox / "refused" / "grammar_check.report.json").read_text()


def _dies(*_: object) -> str:
    raise KeyboardInterrupt
