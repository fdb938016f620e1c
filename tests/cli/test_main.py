"""Every verb: exit codes 0 ok, 1 error, 2 gate refused, 3 waiting for people; words, and JSON in its promised shape."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from small_loop import TASKS, Learnt, SmallLoop, write_package

from components.audit import log
from components.storage import leases
from lcia.operations.table import OPERATIONS

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

MOVIE, PRODUCT, PASSIVE = TASKS
AUTOMATIC = ("--set", "policy.approval.auto=true", "--set", "policy.approval.auto_if=pass")
INSTRUCTION = "Decide whether the film review snippet is positive or negative."


# -- look -------------------------------------------------------------------------------------------


def test_help_lists_verbs_that_look_verbs_that_do_and_groups(lcia: "Lcia", learnt: Learnt) -> None:
    ended = lcia(learnt.loop, "--help")
    assert ended.code == 0
    look, _, rest = ended.out.partition("\nLook:\n")[2].partition("\nDo:\n")
    do, _, groups = rest.partition("\nGroups:\n")
    listed = [line.split()[0] for line in look.splitlines() if line[2:3].strip()]
    assert listed[0] == "status"
    assert {
        *("matrix", "show", "flips", "plan", "ask", "reevaluate", "tasks", "candidates", "lineage", "diff", "doctor"),
        *("retention", "settings"),
    } <= set(listed)
    for verb in ("submit", "run", "work", "approve", "reject", "revoke", "supersede", "rollback", "retry", "sync"):
        assert f"\n  {verb} " in f"\n{do}"
    for group in ("audit", "people", "tokens", "policy", "keys", "database", "registry", "stack", "schedule"):
        assert f"\n  {group} " in f"\n{groups}"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["improve"], "No such command 'improve'"),
        (["approve"], "Missing argument 'N'"),
        (["reject", "1"], "Missing option '--reason'"),
        (["status", "--jsno"], "No such option"),
        (["retry", "first"], "should be a valid integer"),
    ],
)
def test_bad_usage_is_one_message(lcia: "Lcia", fresh: SmallLoop, argv: list[str], words: str) -> None:
    ended = lcia(fresh, *argv)
    assert ended.code == 1
    assert words in ended.err
    assert "Usage: lcia " in ended.err
    assert ended.out == ""


def test_status_json(lcia: "Lcia", learnt: Learnt) -> None:
    ended = lcia(learnt.loop, "status", "--json")
    assert ended.code == 0
    status = ended.json
    assert {"champion", "queue", "candidates", "audit"} <= set(status)
    champion = status["champion"]
    assert (champion["version"], champion["digest"]) == (3, learnt.digests[-1])
    assert champion["tasks"] == list(TASKS)
    assert [(group["id"], group["tasks"]) for group in champion["groups"]] == [
        ("g1", [MOVIE, PRODUCT]),
        ("g2", [PASSIVE]),
    ]
    assert status["queue"]["promoted"] == 3
    assert [item["name"] for item in status["queue"]["items"]] == list(TASKS)
    assert [candidate["number"] for candidate in status["candidates"]] == [1, 2, 3]
    assert set(status["audit"]) == {"entries", "head"}
    assert len(status["audit"]["head"]) == 64


def test_status_in_words(lcia: "Lcia", learnt: Learnt, pending: SmallLoop) -> None:
    told = lcia(learnt.loop, "status").out
    assert told.startswith(f"assistant: champion is version 3 ({learnt.digests[-1][:12]}), served by MLflow\n")
    assert "group g1: movie_sentiment, product_sentiment\n" in told
    waiting = lcia(pending, "status").out
    assert "no champion yet" in waiting
    assert "version 1 (movie_sentiment@1) waits for people" in waiting


def test_matrix_json_and_words(lcia: "Lcia", learnt: Learnt) -> None:
    matrix = lcia(learnt.loop, "matrix", "--json").json
    assert {"tasks", "matrix", "avg_acc", "new_acc", "forgetting", "bwt"} <= set(matrix)
    assert matrix["tasks"] == list(TASKS)
    assert [row.count(None) for row in matrix["matrix"]] == [2, 1, 0]
    told = lcia(learnt.loop, "matrix").out
    assert all(name in told for name in (*TASKS, "Avg.ACC", "New.ACC", "Forgetting", "BWT"))
    assert lcia(learnt.loop, "matrix", "--version", "1", "--json").json["tasks"] == [MOVIE]


def test_show_names_all_a_decision_rests_on(lcia: "Lcia", learnt: Learnt) -> None:
    shown = lcia(learnt.loop, "show", "2", "--json").json
    assert shown["version"]["digest"] == learnt.digests[1]
    assert shown["tuning"]["rule"] == "curvature"
    assert shown["chosen"]["point"] in {point["name"] for point in shown["chosen"]["points"]}
    assert [one["person"] for one in shown["approvals"]] == ["ops"]
    assert shown["evidence"]["candidate"] == learnt.digests[1]
    told = lcia(learnt.loop, "show", "2").out
    assert "learnt product_sentiment@1" in told
    assert "joins g1" in told
    assert "gate: inconclusive" in told or "gate: fail" in told or "gate: pass" in told


def test_flips_are_for_approvers_and_each_look_is_in_the_log(lcia: "Lcia", champion: SmallLoop, tmp_path: Path) -> None:
    before = lcia(champion, "status", "--json").json["audit"]["entries"]
    refused = lcia(champion, "flips", "2", "--as", "Site")
    assert refused.code == 1
    assert "test rows are for those who approve" in refused.err
    assert lcia(champion, "status", "--json").json["audit"]["entries"] == before
    seen = lcia(champion, "flips", "2", "--as", "ops", "--json").json
    assert set(seen) == {"version", "flips", "held_back", "other_sites"}
    assert all(flip["score_before"] != flip["score_after"] for flip in seen["flips"])
    page = tmp_path / "flips.html"
    assert lcia(champion, "flips", "2", "--as", "ops", "--html", page).code == 0
    assert f"{len(seen['flips'])} test rows changed" in page.read_text(encoding="utf-8")
    assert "this look is in the log" in lcia(champion, "flips", "2", "--as", "ops").out
    instance = champion.open()
    with instance.db.read() as connection:
        looks = [entry for entry in log.entries(connection) if entry.action == "flips.seen"]
    assert [(entry.actor.name, entry.details["rows"]) for entry in looks] == [("ops", len(seen["flips"]))]
    assert lcia(champion, "flips", "99", "--as", "ops").code == 1


def test_plan_assesses_and_changes_nothing(lcia: "Lcia", champion: SmallLoop, tmp_path: Path) -> None:
    before = lcia(champion, "status", "--json").json
    package = write_package(tmp_path / "more", PRODUCT, first=40, version="2")
    ended = lcia(champion, "plan", package, "--json")
    told = ended.json
    assert ended.code == told["exit_code"]
    assert told["verdict"] in ("learn", "hold", "nothing_to_learn")
    told_length = told["length"]
    assert (told_length["rows_read"], told["estimate"]["training_rows"], told["estimate"]["steps"]) == (12, 12, 6)
    left_out = f"{told_length['rows'] - 12} of {told_length['rows']} training rows are not read: tuning.steps is 6"
    assert told_length["remarks"][0].startswith(left_out)
    now, later = told["gate"]["now"], told["gate"]["later"]
    assert [task["name"] for task in now["tasks"]] == [MOVIE, PRODUCT]
    assert now["tasks"][0]["look"] == 2, "version 2 was compared with its anchor"
    assert (later["test_rows"], later["tasks"], later["enough"]) == (15, 3, False)
    assert later["rows_needed"] >= 100
    assert "WARNING: policy: A candidate without any true change" in ended.err
    words = lcia(champion, "plan", package, "--set", "policy.gate.step_margin=0.5").out
    assert f"  {left_out}, of 2 rows each; to read them, set tuning.steps to null\n" in words
    assert "test rows each, for all 3 tasks of its group would do" in words
    assert lcia(champion, "status", "--json").json == before


def test_plan_refuses_what_submit_would(lcia: "Lcia", fresh: SmallLoop) -> None:
    package = fresh.package(MOVIE)
    (package / "test.jsonl").write_text("no json", encoding="utf-8")
    ended = lcia(fresh, "plan", package)
    assert ended.code == 1
    assert "test.jsonl" in ended.err


def test_plan_refuses_answers_that_would_be_cut_and_tells_a_derived_limit(
    lcia: "Lcia", fresh: SmallLoop, tmp_path: Path
) -> None:
    long = " ".join(["a sentence of some words"] * 8)

    def free(name: str, **decoding: int) -> Path:
        made = write_package(tmp_path / name, MOVIE, decoding=decoding, choices=None, metric="rouge_l")
        for split in ("train", "validation", "test"):
            file = made / f"{split}.jsonl"
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            file.write_text("".join(json.dumps({**row, "output": long}) + "\n" for row in rows), encoding="utf-8")
        return made

    ended = lcia(fresh, "plan", free("cut", max_new_tokens=32))
    assert ended.code == 1
    assert "reachable of test: seen 15 of 15, worst row 1: " in ended.out
    assert "tokens, decoding.max_new_tokens is 32" in ended.out
    told = lcia(fresh, "plan", free("derived"), "--json").json
    assert told["answer_limit"]["derived"]
    assert told["answer_limit"]["max_new_tokens"] > 32
    assert "reachable" not in told["validation"]["failed"]
    assert [one["check"] for one in told["not_checked"]] == ["rows unlike the rest"]
    assert (told["gate"]["attempt"], told["gate"]["attempts_allowed"]) == (1, 3)


def test_plan_finds_leaks_from_erased_rows_by_their_hashes(lcia: "Lcia", champion: SmallLoop, tmp_path: Path) -> None:
    leaking = write_package(tmp_path / "leaking", PRODUCT, first=40, version="3")
    trained = (champion.package(MOVIE) / "train.jsonl").read_text(encoding="utf-8").splitlines()
    (leaking / "test.jsonl").write_text("\n".join(trained[:15]) + "\n", encoding="utf-8")
    instance = champion.open()
    learnt = {entry.name: entry.task for entry in instance.pool(str(instance.champion().digest)).tasks()}  # type: ignore[union-attr]
    instance.store.erase(instance.store.get_json(learnt[MOVIE])["splits"]["train"]["object"], "its time is over")
    told = lcia(champion, "plan", leaking, "--json").json
    assert told["verdict"] == "refuse"
    assert "leaks" in told["validation"]["failed"]
    assert "leaks" not in [one["check"] for one in told["not_checked"]]


def test_ask_routes_or_says_that_the_base_model_answered(lcia: "Lcia", learnt: Learnt) -> None:
    asked = lcia(learnt.loop, "ask", INSTRUCTION, "--input", "A dull mess.", "--json").json
    assert set(asked) == {"answer", "version", "group", "similarity", "nearest_task"}
    assert (asked["version"], asked["group"], asked["nearest_task"]) == (3, "g1", MOVIE)
    stranger = lcia(learnt.loop, "ask", "qqq zzz xxx").out
    assert "no group is near enough, the base model answered" in stranger
    base = lcia(learnt.loop, "ask", INSTRUCTION, "--base", "--json").json
    assert (base["version"], base["group"]) == (None, None)


def test_an_empty_home_says_what_to_do(lcia: "Lcia", fresh: SmallLoop) -> None:
    assert lcia(fresh, "status", "--json").json["champion"] is None
    assert "no champion yet" in lcia(fresh, "status").out
    for verb in ("matrix", "show"):
        ended = lcia(fresh, verb)
        assert ended.code == 1
        assert "there is no champion yet" in ended.err
    assert lcia(fresh, "audit", "verify", "--json").json["ok"]
    ended = lcia(fresh, "work")
    assert (ended.code, ended.out) == (0, "Nothing to do: the queue holds no open task.\n")


def test_a_real_process(learnt: Learnt) -> None:
    """The installed command itself; only JSON on standard output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LCIA", "ZENML"))}
    done = subprocess.run(
        [Path(sys.executable).with_name("lcia"), "status", "--json"],
        cwd=learnt.loop.config.parent,
        env={**kept, "LCIA_HOME": str(learnt.loop.home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["champion"]["digest"] == learnt.digests[-1]


def test_ctrl_c_says_how_to_go_on(lcia: "Lcia", fresh: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(instance: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(OPERATIONS, "status", replace(OPERATIONS["status"], function=interrupt))
    ended = lcia(fresh, "status")
    assert ended.code == 1
    assert "interrupted; run the same command again to go on" in ended.err


# -- the log ----------------------------------------------------------------------------------------


def test_audit_verify_finds_one_changed_byte(lcia: "Lcia", learnt: Learnt, tmp_path: Path) -> None:
    export, key = tmp_path / "log.jsonl", learnt.loop.home / "keys" / "audit-key.pub.pem"
    written = lcia(learnt.loop, "audit", "export", export, "--json").json
    assert written["entries"] == lcia(learnt.loop, "status", "--json").json["audit"]["entries"]
    good = lcia(learnt.loop, "audit", "verify", export, "--key", key, "--json")
    assert good.code == 0
    assert {"ok", "entries", "head", "first_bad"} <= set(good.json)
    told = good.json
    assert (told["ok"], told["entries"], told["head"], told["first_bad"]) == (
        True,
        written["entries"],
        written["head"],
        None,
    )
    content = export.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(content[:-1]) if byte == ord("\n"))]
    for entry, start in enumerate(starts):
        instance = start + 40 + entry
        export.write_bytes(content[:instance] + bytes([content[instance] ^ 1]) + content[instance + 1 :])
        bad = lcia(learnt.loop, "audit", "verify", export, "--json")
        assert bad.code == 1
        assert (bad.json["ok"], bad.json["first_bad"]) == (False, entry)


def test_audit_verify_finds_a_cut_log_by_its_head(lcia: "Lcia", learnt: Learnt, tmp_path: Path) -> None:
    export = tmp_path / "log.jsonl"
    head = Path(lcia(learnt.loop, "audit", "export", export, "--json").json["head_file"])
    kept = head.rename(tmp_path / "kept-elsewhere.json")
    export.write_bytes(b"".join(export.read_bytes().splitlines(keepends=True)[:-1]))
    alone = lcia(learnt.loop, "audit", "verify", export)
    assert alone.code == 0
    assert "freshness" in alone.out + lcia(learnt.loop, "audit", "verify", export, "--json").json["freshness"]
    assert lcia(learnt.loop, "audit", "verify", export, "--head", kept).code == 1


# -- settings ---------------------------------------------------------------------------------------


def test_an_unknown_key_in_the_settings_file(lcia: "Lcia", fresh: SmallLoop) -> None:
    settings = yaml.safe_load(fresh.config.read_text(encoding="utf-8"))
    settings["tuning"]["stepz"] = 9
    fresh.config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ended = lcia(fresh, "status")
    assert ended.code == 1
    assert "tuning.stepz: unknown key" in ended.err
    assert "zenml.yaml" in ended.err


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LCIA__TUNING__STEPZ", "9", "tuning.stepz: unknown key"),
        ("LCIA__X", "1", "x: unknown key"),
        ("LCIA__TUNING__STEPS", "none", "tuning.steps"),
    ],
)
def test_a_wrong_environment_variable(
    lcia: "Lcia", fresh: SmallLoop, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    ended = lcia(fresh, "status")
    assert ended.code == 1
    assert words in ended.err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tuning.steps", "has no '='"),
        ("tuning.stepz=9", "tuning.stepz: unknown key"),
        ("tuning.steps=0", "tuning.steps"),
        ("tuning.steps.more=1", "tuning.steps"),
        ("tuning.ema.rule=best", "tuning.ema.rule"),
        ("policy.gate.pooled_margin=0.5", "expected at most step_margin"),
        ("tuning.steps=[", "is not a YAML value"),
    ],
)
def test_a_wrong_override(lcia: "Lcia", fresh: SmallLoop, override: str, words: str) -> None:
    ended = lcia(fresh, "run", fresh.package(MOVIE), "--set", override)
    assert ended.code == 1
    assert words in ended.err
    assert not (fresh.home / "lcia.db").exists()


def test_reevaluate_repeats_every_stored_prediction(lcia: "Lcia", learnt: Learnt) -> None:
    found = lcia(learnt.loop, "reevaluate", "--json")
    assert (found.code, found.json["ok"], found.json["mismatches"]) == (0, True, [])
    assert (found.json["version"], found.json["tasks"], found.json["rows"]) == (3, 3, 45)
    assert found.json["carried"] > 0
    told = lcia(learnt.loop, "reevaluate", "1")
    assert told.code == 0
    assert "Version 1: 15 rows of 1 tasks predicted again, 0 of them carried over; 0 differ" in told.out


# -- do ---------------------------------------------------------------------------------------------


def test_four_eyes_refuse_the_submitter_and_name_the_setting(lcia: "Lcia", pending: SmallLoop) -> None:
    before = lcia(pending, "status", "--json").json
    ended = lcia(pending, "approve", 1, "--as", "site")
    assert ended.code == 1
    assert "site submitted the task of version 1" in ended.err
    assert "policy.approval.four_eyes=false" in ended.err
    assert lcia(pending, "approve", 1, "--as", " SITE ").code == 1
    assert lcia(pending, "status", "--json").json == before


def test_four_eyes_off_marks_the_version(lcia: "Lcia", pending: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCIA__POLICY__APPROVAL__FOUR_EYES", "false")
    assert lcia(pending, "approve", 1, "--as", "site").code == 0
    marks = lcia(pending, "status", "--json").json["champion"]["marks"]
    assert {"four eyes off", "asserted identity", "changed policy.gate.enforce"} <= set(marks)


def test_approve_promotes_and_says_so(lcia: "Lcia", pending: SmallLoop, learnt: Learnt) -> None:
    ended = lcia(pending, "approve", "v1", "--as", "ops", "--reason", "read it", "--json")
    assert ended.code == 0
    decided = {"version": 1, "digest": learnt.digests[0], "state": "promoted", "served": True, "registry_untold": []}
    assert ended.json == {**decided, "epoch": 1, "known": False, "followers": [], "exit_code": 0}
    assert ended.err == ""
    before = lcia(pending, "status", "--json").json
    assert before["champion"]["served"] == learnt.digests[0]
    again = lcia(pending, "approve", 1, "--as", "ops")
    assert (again.code, again.out) == (0, "Version 1 is the champion already; nothing was changed.\n")
    assert lcia(pending, "status", "--json").json == before


@pytest.mark.parametrize("version", ["99", "0", "feedbeef", "latest"])
def test_an_unknown_version(lcia: "Lcia", pending: SmallLoop, version: str) -> None:
    before = lcia(pending, "status", "--json").json
    for argv in (
        ["approve", version, "--as", "ops"],
        ["reject", version, "--as", "ops", "--reason", "no"],
        ["rollback", version, "--as", "ops", "--reason", "no"],
        ["show", version],
    ):
        ended = lcia(pending, *argv)
        assert ended.code == 1
        assert version in ended.err
    assert lcia(pending, "status", "--json").json == before


def test_a_quorum_asks_for_more_people(lcia: "Lcia", pending: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCIA__POLICY__APPROVAL__QUORUM", "2")
    first = lcia(pending, "approve", 1, "--as", "ops")
    assert first.code == 3
    assert "requires more people" in first.out
    assert lcia(pending, "approve", 1, "--as", "Ops").code == 3
    assert lcia(pending, "status", "--json").json["champion"] is None
    assert lcia(pending, "approve", 1, "--as", "second").code == 0


def test_an_enforced_gate_refuses_approval(lcia: "Lcia", pending: SmallLoop) -> None:
    ended = lcia(pending, "approve", 1, "--as", "ops", "--set", "policy.gate.enforce=true")
    assert ended.code == 2
    assert "expected pass" in ended.err
    assert lcia(pending, "status", "--json").json["champion"] is None


def test_reject_and_retry(lcia: "Lcia", pending: SmallLoop) -> None:
    assert lcia(pending, "reject", 1, "--as", "ops", "--reason", " ").code == 1
    ended = lcia(pending, "reject", 1, "--as", "ops", "--reason", "too early", "--json")
    assert ended.code == 0
    assert (ended.json["version"], ended.json["state"]) == (1, "rejected")
    late = lcia(pending, "approve", 1, "--as", "ops")
    assert late.code == 1
    assert "rejected" in late.err
    again = lcia(pending, "retry", 1, "--as", "site", "--json")
    assert (again.code, again.json["state"]) == (0, "submitted")
    for wrong in (1, 99):
        assert lcia(pending, "retry", wrong).code == (0 if wrong == 1 else 1)


def test_run_ends_with_2_when_the_gate_refuses_and_3_when_people_are_asked(
    lcia: "Lcia", champion: SmallLoop, tmp_path: Path
) -> None:
    package = write_package(tmp_path / "more", PASSIVE, first=40, version="2")
    ended = lcia(champion, "run", package, "--as", "site", "--set", "policy.gate.enforce=true", "--json")
    assert ended.code == 2
    told = ended.json
    assert (told["state"], told["exit_code"], told["candidate"]) == ("candidate", 2, 4)
    assert told["verdict"] in {"fail", "inconclusive"}
    assert "not approvable; `lcia show 4` says why" in told["reason"]
    assert "learn_task (tune, evaluate, gate, register)" in ended.err
    assert lcia(champion, "status", "--json").json["champion"]["version"] == 3
    assert lcia(champion, "reject", 4, "--as", "ops", "--reason", "gate").code == 0
    assert lcia(champion, "retry", told["id"], "--as", "site").code == 0
    again = lcia(champion, "work", "--as", "site")
    assert again.code == 3
    assert "waits for `lcia approve" in again.out


def test_automatic_approval_marks_the_version(lcia: "Lcia", champion: SmallLoop, tmp_path: Path) -> None:
    package = write_package(tmp_path / "more", PASSIVE, first=40, version="2")
    ended = lcia(champion, "run", package, "--as", "site", *AUTOMATIC, "--json")
    assert (ended.code, ended.json["state"]) == (0, "promoted")
    marks = lcia(champion, "status", "--json").json["champion"]["marks"]
    assert {"automatic approval", "changed policy.approval.auto"} <= set(marks)


def test_rollback_and_back(lcia: "Lcia", champion: SmallLoop, learnt: Learnt) -> None:
    ended = lcia(champion, "rollback", 1, "--as", "ops", "--reason", "trial", "--json")
    assert ended.code == 0
    assert (ended.json["kind"], ended.json["version"], ended.json["epoch"]) == ("rollback", learnt.digests[0], 4)
    status = lcia(champion, "status", "--json").json
    assert (status["champion"]["version"], status["champion"]["served"]) == (1, learnt.digests[0])
    again = lcia(champion, "rollback", 1, "--as", "ops", "--reason", "trial")
    assert again.code == 1
    assert "the champion already" in again.err
    forward = lcia(champion, "rollback", 3, "--as", "ops", "--reason", "back")
    assert (forward.code, "lcia approve 3" in forward.err) == (1, True)
    assert lcia(champion, "approve", 3, "--as", "ops", "--reason", "back").code == 0
    back = lcia(champion, "status", "--json").json["champion"]
    assert (back["version"], back["epoch"]) == (3, 5)
    assert any(mark.startswith("gate ") for mark in back["marks"]), "marks of its promotion stay"


def test_another_worker_at_work(lcia: "Lcia", fresh: SmallLoop) -> None:
    assert lcia(fresh, "submit", fresh.package(MOVIE), "--as", "site").code == 0
    db = fresh.open().db
    lease = leases.acquire(db, "lineage:assistant", "somebody", 60.0)
    assert lease is not None
    ended = lcia(fresh, "work", "--as", "site")
    assert (ended.code, ended.err) == (0, ""), "two workers are safe together: no reason for an alarm"
    assert "left to the other worker: somebody is at work on 'assistant'; versions are registered by one" in ended.out
    assert lcia(fresh, "work", "--as", "site", "--json").json == []
    assert lcia(fresh, "status", "--json").json["queue"]["submitted"] == 1


def test_an_unknown_option_of_zenml(lcia: "Lcia", champion: SmallLoop, tmp_path: Path) -> None:
    package = write_package(tmp_path / "more", PASSIVE, first=40, version="2")
    ended = lcia(champion, "run", package, "--as", "site", "--set", "zenml.stepz={}")
    assert ended.code == 1
    assert "zenml.stepz is no option of a ZenML run" in ended.err
