"""What ops people do at the console, from beginning to end, with the real worker and the real gate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import MARKUP, write_hostile
from small_loop import OPS, SITE

from components.audit import log
from components.promotion import approvals, champion
from lcia.operations import decisions, tasks
from tests.browser.conftest import running

ROOT = Path(__file__).parents[2]


def decide(visitor, name, reason):
    """Open what a decision hides behind, give a reason, press the button; the page that follows has loaded."""
    form = visitor.page.locator(f"form[action='/do/{name}']")
    if not form.is_visible():
        visitor.page.locator("details", has=form).locator("summary").click()
    form.get_by_label("Why").fill(reason)
    form.get_by_role("button").click()
    return form


def said(visitor, words):
    """Wait for what is said on top of the next page."""
    visitor.page.locator(".flash").get_by_text(words).wait_for()


@pytest.mark.slow
def test_a_task_is_followed_without_loading_the_page_again(learnt, enter, tmp_path):
    """A worker in a process of its own learns; the page moves along until the version waits."""
    loop = learnt.loop.copy(tmp_path)
    with running(loop) as site:
        item = tasks.submit(site.instance, write_hostile(loop.packages), SITE)
        overview, task = enter(site, "approver"), enter(site, "engineer")
        overview.go("/")
        task.go(f"/tasks/{item.id}")
        for visitor in (overview, task):
            visitor.page.evaluate("window.stays = true")
        environment = {**os.environ, "LCIA_HOME": str(loop.home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "lcia.cli.main", "work", "--config", str(loop.config), "--as", "worker"]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as work:
            try:
                for state in ("being checked", "being learnt"):
                    task.page.locator("[aria-current=step]", has_text=state).wait_for(timeout=300_000)
                overview.page.locator(".live progress").first.wait_for(timeout=300_000)
                overview.page.get_by_text("running, last seen").wait_for()
                overview.page.locator(".live").get_by_role("link", name="Version 4").wait_for(timeout=300_000)
                task.page.locator("[aria-current=step]", has_text="candidate").wait_for(timeout=60_000)
            finally:
                work.terminate()
        for visitor in (overview, task):
            assert visitor.page.evaluate("window.stays")
            assert visitor.complaints == []


def test_two_people_read_and_approve(own_site, enter):
    own_site.person("second", "approver")
    first, second = enter(own_site, "approver"), enter(own_site, "second")
    first.go("/versions/4")
    first.page.get_by_role("link", name="Read them side by side").click()
    first.page.wait_for_url("**/versions/4/flips")
    first.page.go_back()
    decide(first, "approve", MARKUP)
    said(first, "Your approval of version 4 counts; more people have to approve.")
    assert own_site.instance.champion().number == 3
    second.go("/versions/4")
    assert MARKUP in second.page.locator("#decide").inner_text()
    decide(second, "approve", "read as well")
    said(second, "Version 4 is the champion now.")
    assert own_site.instance.champion().number == 4
    with own_site.instance.db.read() as connection:
        given = approvals.answers(connection, own_site.instance.champion())
    assert [(one.person, one.assured) for one in given] == [("approver", True), ("second", True)]
    second.go("/")
    second.page.get_by_role("link", name="Version 4").first.wait_for()
    with own_site.instance.db.read() as connection:
        looks = [one for one in log.entries(connection) if one.action == "flips.seen"]
    assert [look.actor.name for look in looks] == ["approver"]
    for visitor in (first, second):
        assert visitor.complaints == []
        assert not visitor.page.evaluate("window.hacked")


def test_whoever_brought_the_task_in_may_not_approve_it(own_site, enter):
    own_site.person(SITE.name, "submitter", "approver")
    visitor = enter(own_site, SITE.name)
    visitor.go("/versions/4")
    visitor.page.get_by_text("somebody else has to approve it").wait_for()
    assert visitor.page.locator("form[action='/do/approve']").count() == 0
    refused = visitor.page.evaluate(
        """async () => {
            const csrf = document.querySelector('[name=csrf]').value;
            const body = new URLSearchParams({csrf, version: '4', reason: 'mine', back: '/'});
            const answer = await fetch('/do/approve', {method: 'POST', body, headers: {'hx-request': 'true'}});
            return [answer.status, await answer.text()];
        }"""
    )
    assert refused[0] == 400
    assert "Not done." in refused[1]
    assert SITE.name in refused[1]
    assert own_site.instance.champion().number == 3


def test_an_approval_that_comes_too_late_is_refused_in_place_and_keeps_what_was_typed(own_site, enter):
    visitor = enter(own_site, "approver")
    visitor.go("/versions/4")
    decisions.rollback(own_site.instance, "2", OPS, "while somebody read")
    form = decide(visitor, "approve", "read with care")
    form.locator(".answer").get_by_text("made on another version than the new champion").wait_for()
    assert form.get_by_label("Why").input_value() == "read with care"
    visitor.go("/versions/4")
    visitor.page.locator("h1").get_by_text("superseded").wait_for()
    assert visitor.page.locator("form[action='/do/approve']").count() == 0


def test_an_earlier_version_is_the_champion_again(own_site, enter):
    visitor = enter(own_site, "approver")
    visitor.go("/versions/1")
    decide(visitor, "rollback", f"complaints {MARKUP}")
    said(visitor, "Version 1 is the champion again.")
    assert own_site.instance.champion().number == 1
    with own_site.instance.db.read() as connection:
        assert champion.lineage(connection, own_site.instance.assistant)[-1].by == "approver"
    visitor.go("/")
    assert f"complaints {MARKUP}" in visitor.page.inner_text("main")
    assert visitor.complaints == []


def test_the_log_is_verified(own_site, enter):
    visitor = enter(own_site, "auditor")
    visitor.go("/log")
    visitor.page.get_by_role("button", name="Check every entry now").click()
    visitor.page.get_by_text("entries are good: nothing was altered").wait_for()
    assert visitor.complaints == []
