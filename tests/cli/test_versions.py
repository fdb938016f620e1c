"""Verbs that list and compare: what they say agrees with the state, and they change nothing."""

import json
from typing import TYPE_CHECKING

import pytest
from small_loop import Learnt, SmallLoop

from lcia.cli.text import status, tables

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia


def test_tasks_say_where_each_one_stands(lcia: "Lcia", learnt: Learnt) -> None:
    found = lcia(learnt.loop, "tasks", "--json").json
    assert [(one["name"], one["state"], one["learnt_in"]) for one in found] == [
        ("movie_sentiment", "promoted", 1),
        ("product_sentiment", "promoted", 2),
        ("passive_voice", "promoted", 3),
    ]
    matrix = lcia(learnt.loop, "matrix", "--json").json
    assert [one["score"] for one in found] == pytest.approx(matrix["matrix"][-1])
    assert [one["anchor"] for one in found] == pytest.approx([matrix["matrix"][i][i] for i in range(3)])
    assert [one["group"] for one in found] == ["g1", "g1", "g2"]
    assert found[0]["retention"]["evaluation_rows"] is True
    cost = found[0]["cost"]
    assert cost["actual"]["seconds"] > 0
    assert "default" in cost["estimate"]["basis"]
    assert found[2]["cost"]["estimate"]["basis"] == "2 earlier runs here"


def test_tasks_are_filtered(lcia: "Lcia", learnt: Learnt) -> None:
    assert [one["name"] for one in lcia(learnt.loop, "tasks", "--owner", "writing", "--json").json] == ["passive_voice"]
    assert lcia(learnt.loop, "tasks", "--state", "held").out == "No task matches.\n"
    wrong = lcia(learnt.loop, "tasks", "--state", "lost")
    assert wrong.code == 1
    assert "'lost' is no state of a task, expected one of submitted" in wrong.err


def test_candidates_name_who_decided(lcia: "Lcia", learnt: Learnt, pending: SmallLoop) -> None:
    found = lcia(learnt.loop, "candidates", "--json").json
    assert [(one["number"], one["made_on"]) for one in found] == [(1, None), (2, 1), (3, 2)]
    assert all([yes["person"] for yes in one["approvals"]] == ["ops"] for one in found)
    assert lcia(pending, "candidates", "--state", "pending", "--json").json[0]["approvals"] == []
    assert lcia(pending, "candidates", "--state", "gone").code == 1


def test_lineage_shows_rollbacks_and_branches(lcia: "Lcia", champion: SmallLoop) -> None:
    assert lcia(champion, "rollback", 2, "--as", "ops", "--reason", "complaints").code == 0
    told = lcia(champion, "lineage", "--json").json
    assert [one["number"] for one in told["line"]] == [1, 2]
    assert [(made["epoch"], made["kind"]) for made in told["line"][1]["epochs"]] == [(2, "promotion"), (4, "rollback")]
    assert [other["number"] for other in told["line"][1]["branches"]] == [3]
    assert "* version 2" in lcia(champion, "lineage").out
    assert "|-- version 3" in lcia(champion, "lineage", 2).out


def test_diff_pairs_the_rows(lcia: "Lcia", learnt: Learnt) -> None:
    told = lcia(learnt.loop, "diff", 1, 2, "--json").json
    assert told["tasks"] == {"only_before": [], "only_after": ["product_sentiment"]}
    assert [(group["id"], group["adapter"]) for group in told["groups"]] == [("g1", "changed")]
    (score,) = told["scores"]
    assert score["gain"] == pytest.approx(score["after"] - score["before"])
    assert score["gain"] == pytest.approx((score["won"] - score["lost"]) / score["rows"])
    assert score["interval"][0] <= score["gain"] <= score["interval"][1]
    back = lcia(learnt.loop, "diff", 2, 1, "--json").json["scores"][0]
    assert (back["lost"], back["won"], back["gain"]) == (score["won"], score["lost"], pytest.approx(-score["gain"]))
    same = lcia(learnt.loop, "diff", 3, 3, "--json").json
    assert all(one["same_object"] and one["interval"] == [0.0, 0.0] for one in same["scores"])
    assert "settings: the same" in lcia(learnt.loop, "diff", 3).out


def test_the_log_is_filtered(lcia: "Lcia", learnt: Learnt) -> None:
    everything = lcia(learnt.loop, "audit", "show", "--json").json
    assert [one["index"] for one in everything] == list(range(len(everything)))
    yes = lcia(learnt.loop, "audit", "show", "--kind", "candidate.approved", "--person", " OPS", "--json").json
    assert yes == [one for one in everything if one["action"] == "candidate.approved"]
    kinds = {one["action"].partition(".")[0] for one in everything}
    parts = [lcia(learnt.loop, "audit", "show", "--kind", kind, "--json").json for kind in sorted(kinds)]
    assert sum(map(len, parts)) == len(everything)
    last = lcia(learnt.loop, "audit", "show", "--tail", 2, "--json").json
    assert last == everything[-2:]
    assert lcia(learnt.loop, "audit", "show", "--tail", 0).out == "No entry matches.\n"
    digest = learnt.digests[0]
    about = lcia(learnt.loop, "audit", "show", "--subject", digest[:10], "--json").json
    assert {one["subject"] for one in about} == {digest}
    later = lcia(learnt.loop, "audit", "show", "--since", everything[3]["at"][:19], "--json").json
    assert later == [one for one in everything if one["at"] >= everything[3]["at"][:19]]
    assert lcia(learnt.loop, "audit", "show", "--since", "yesterday").code == 1


def test_revoke_takes_back_ones_own_yes(lcia: "Lcia", pending: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCIA__POLICY__APPROVAL__QUORUM", "2")
    assert lcia(pending, "approve", 1, "--as", "ops").code == 3
    assert "has no approval of version 1" in lcia(pending, "revoke", 1, "--as", "other", "--reason", "x").err
    taken = lcia(pending, "revoke", 1, "--as", "OPS", "--reason", "read again", "--json")
    assert (taken.code, taken.json["person"], taken.json["state"]) == (0, "ops", "pending")
    assert lcia(pending, "approve", 1, "--as", "second").code == 3
    assert "ops: yes, taken back, second: yes" in lcia(pending, "candidates").out
    assert lcia(pending, "audit", "show", "--kind", "approval.revoked", "--json").json[0]["details"] == {
        "approvals": [1],
        "person": "ops",
        "reason": "read again",
    }


def _status(tasks: int) -> dict[str, object]:
    held = {7, 2_000}
    items = [
        {"id": i, "name": f"t{i}", "version": "1", "state": "held" if i in held else "promoted", "reason": "because"}
        for i in range(1, tasks + 1)
    ]
    names = [f"t{i}" for i in range(1, tasks + 1)]
    groups = [{"id": "g1", "tasks": names, "adapter": "a" * 64}]
    shown = {"version": 3, "digest": "a" * 64, "served": "a" * 64, "groups": groups, "epoch": 3}
    return {
        "assistant": "assistant",
        "champion": shown,
        "queue": {"held": 2, "promoted": tasks - 2, "items": items},
        "candidates": [],
        "audit": {"entries": 9, "head": "b" * 64},
        "registry": {"pending": 0},
    }


def test_status_stays_readable_with_5000_tasks() -> None:
    told = status.status(_status(5_000))
    lines = told.splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) < 300
    assert all(f"task {number} t{number}@1: held" in told for number in (7, 2_000)), "what waits for people is shown"
    assert "task 5000 " in told
    assert "4960 more of 5000 tasks (2 held, 4998 promoted); --all shows them" in told
    assert len(status.status(_status(5_000), everything=True).splitlines()) > 5_000


def test_long_lists_say_what_they_leave_out() -> None:
    row = {"number": 1, "digest": "a" * 64, "state": "pending", "verdict": "pass", "task_name": "t@1", "made_on": None}
    rows = [{**row, "attempt": 1, "approvals": []}] * 60
    assert tables.versions(rows, everything=False).endswith("... 10 more earlier versions; --all shows them")
    assert len(tables.versions(rows, everything=True).splitlines()) == 61


def test_looking_changes_nothing(lcia: "Lcia", champion: SmallLoop) -> None:
    before = lcia(champion, "status", "--json").out
    for argv in (
        ["tasks"],
        ["candidates"],
        ["lineage"],
        ["diff", "1"],
        ["audit", "show"],
        ["show"],
        ["doctor", "--quick"],
    ):
        ended = lcia(champion, *argv, "--json")
        assert ended.code == 0, ended.err
        json.loads(ended.out)
    assert lcia(champion, "status", "--json").out == before


def test_show_says_what_was_carried_and_what_it_cost(lcia: "Lcia", learnt: Learnt) -> None:
    value = lcia(learnt.loop, "show", 3, "--json").json
    carried = sum(sum(proof["from"].values()) for proof in value["proofs"].values())
    assert carried == value["predictions"]["carried_over"]
    assert value["pseudo_labels"] is None
    told = lcia(learnt.loop, "show", 3).out
    assert "rows proved unchanged" in told
    assert "; estimated " in told
    assert "no row of a prior task goes to another group" in told


def test_supersede_is_declared_once_logged_and_shown(lcia: "Lcia", champion: SmallLoop) -> None:
    old, new = "movie_sentiment@1", "product_sentiment@1"
    done = lcia(champion, "supersede", old, new, "--as", "ops", "--reason", "the same site", "--json")
    assert (done.code, done.json["answers"]["superseded_by"], done.json["state"]) == (0, new, "promoted")
    assert lcia(champion, "supersede", old, new, "--as", "ops", "--reason", "again").code == 0
    entries = lcia(champion, "audit", "show", "--kind", "task.superseded", "--json").json
    assert [(one["subject"], one["details"]["by"]) for one in entries] == [(old, new)]
    assert lcia(champion, "matrix", "--json").json["superseded"] == {"movie_sentiment": new}
    assert "Replaced are movie_sentiment by product_sentiment@1; without them" in lcia(champion, "matrix").out
    for argv in ([new, old], [old, old], [old, "nothing"], [old, new, "--reason", " "]):
        assert lcia(champion, "supersede", "--reason", "x", *argv).code == 1
    assert lcia(champion, "audit", "verify").code == 0
