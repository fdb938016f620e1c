"""Help, completion, doctor and sync."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from small_loop import Learnt, SmallLoop

from lcia.cli import completion
from lcia.cli.main import app

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia


def _verbs() -> Iterator[tuple[str, Any]]:
    command: Any = typer.main.get_command(app)
    for name, verb in command.commands.items():
        inner = getattr(verb, "commands", None)
        yield from ((f"{name} {part}", one) for part, one in inner.items()) if inner else [(name, verb)]


@pytest.mark.parametrize(("name", "verb"), _verbs(), ids=[name for name, _ in _verbs()])
def test_every_verb_has_a_line_of_help_json_and_examples(name: str, verb: Any) -> None:
    summary = (verb.help or "").partition("\n")[0]
    assert summary.endswith("."), name
    shown = f"{verb.help}\n{verb.epilog or ''}"
    examples = [line.strip() for line in shown.splitlines() if line.strip().startswith(("lcia ", "LCIA_HOME="))]
    assert examples, f"lcia {name} --help shows no example"
    assert all(f"lcia {name}" in line for line in examples)
    options = {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert "--json" in options or name in ("demo", "serve", "gateway"), "these print no result"
    used = {word.partition("=")[0] for line in examples for word in line.split() if word.startswith("--")}
    assert used <= options, f"an example of {name} uses an option that it has not"


def _completed(loop: SmallLoop, words: str, home: Path | None = None) -> tuple[list[str], str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LCIA", "ZENML"))}
    asked = {"_LCIA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    done = subprocess.run(
        [Path(sys.executable).with_name("lcia")],
        cwd=loop.config.parent,
        env={**kept, **asked, "LCIA_HOME": str(home or loop.home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout.split(), done.stderr


def test_the_shell_completes_from_the_state(learnt: Learnt, tmp_path: Path) -> None:
    assert _completed(learnt.loop, "lcia show ") == (["1", "2", "3"], "")
    assert _completed(learnt.loop, "lcia show ", tmp_path / "none") == ([], "")
    assert not (tmp_path / "none").exists(), "completion made a state"


def test_what_is_completed(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(learnt.loop.config.parent)
    monkeypatch.setenv("LCIA_HOME", str(learnt.loop.home))
    assert [word for word, _ in completion.groups("")] == ["g1", "g2", "new"]
    assert [word for word, _ in completion.tasks("pas")] == ["passive_voice@1"]
    assert [word for word, _ in completion.items("2")] == ["2"]
    assert completion.pending("") == []
    monkeypatch.setenv("LCIA__STORAGE__DATABASE", "postgresql+psycopg2://nobody@127.0.0.1:1/none")
    assert completion.versions("") == [], "what can't be read cheaply is not offered"


# -- doctor -----------------------------------------------------------------------------------------


def _found(value: Any, check: str) -> list[Any]:
    return [one for one in value["findings"] if one["check"] == check]


def test_doctor_finds_a_sound_state_sound(lcia: "Lcia", learnt: Learnt) -> None:
    ended = lcia(learnt.loop, "doctor", "--json")
    assert ended.code == 0
    assert ended.json["ok"]
    assert {one["check"] for one in ended.json["findings"]} == {
        *("python", "libraries", "settings", "disk", "permissions", "database", "accounts", "log", "leases", "store"),
        *("parser", "model", "mlflow", "zenml"),
    }


def test_doctor_makes_no_state(lcia: "Lcia", fresh: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = lcia(fresh, "doctor", "--quick", "--json")
    assert ended.code == 0
    assert not (fresh.home / "lcia.db").exists()
    assert not (fresh.home / "objects").exists()
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert lcia(fresh, "doctor", "--quick").code == 1


def test_doctor_finds_what_is_ill(lcia: "Lcia", champion: SmallLoop) -> None:
    instance = champion.open()
    (champion.home / "keys" / "leak-key").chmod(0o644)
    adapter = instance.pool(str(instance.champion().digest)).groups[0].adapter  # type: ignore[union-attr]
    content = next(iter(instance.store.folder_files(adapter).values()))
    file = next(path for path in (champion.home / "objects").rglob("*") if path.name.endswith(content[2:]))
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])
    registry = champion.home / "mlflow.db"
    registry.unlink()
    registry.mkdir()
    ended = lcia(champion, "doctor", "--json")
    assert ended.code == 1
    assert "0644, expected 0600" in _found(ended.json, "permissions")[0]["words"]
    assert content in _found(ended.json, "store")[0]["words"]
    assert _found(ended.json, "mlflow")[0]["verdict"] == "problem"
    assert all(one["advice"] for one in ended.json["findings"] if one["verdict"] != "ok")


# -- leases -----------------------------------------------------------------------------------------


def test_a_lease_from_the_future_is_told_broken_and_logged(lcia: "Lcia", champion: SmallLoop) -> None:
    from datetime import timedelta

    from sqlalchemy import update

    from components.storage import leases, tables

    db = champion.open().db
    leases.acquire(db, "lineage:assistant", "worker/elsewhere/boot/7/1", 60)
    refused = lcia(champion, "break-lease", "lineage:assistant", "--reason", "stuck", "--as", "ops")
    assert refused.code == 1
    assert "worker (host elsewhere, process 7), heard 0 seconds ago" in refused.err
    with db.begin() as connection:
        later = db.now(connection) + timedelta(days=2)
        connection.execute(update(tables.leases).values(heartbeat=later))
    (told,) = _found(lcia(champion, "doctor", "--quick", "--json").json, "leases")
    assert (told["verdict"], "in the future" in told["words"]) == ("warning", True)
    freed = lcia(champion, "break-lease", "lineage:assistant", "--reason", "its machine is gone", "--as", "ops")
    assert freed.code == 0
    (entry,) = lcia(champion, "audit", "show", "--kind", "lease.broken", "--json").json
    assert (entry["actor"]["name"], entry["subject"]) == ("ops", "lineage:assistant")
    assert entry["details"]["reason"] == "its machine is gone"
    assert entry["details"]["owner"] == "worker/elsewhere/boot/7/1"
    (told,) = _found(lcia(champion, "doctor", "--quick", "--json").json, "leases")
    assert told["words"] == "none is held: nobody is at work"


# -- sync -------------------------------------------------------------------------------------------


def test_sync_mends_what_was_changed_in_mlflow(lcia: "Lcia", champion: SmallLoop, learnt: Learnt) -> None:
    from mlflow.tracking import MlflowClient

    instance = champion.open()
    uri = instance.settings.registry.tracking_uri
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert lcia(champion, "sync").code == 0  # the copy has a folder of its own for the log's heads
    quiet = lcia(champion, "sync")
    assert (quiet.code, quiet.out) == (0, "MLflow is in step\n")
    client.set_registered_model_alias("assistant", "champion", "1")
    client.delete_model_version("assistant-candidates", "2")
    client.delete_model_version("assistant", "2")
    client.set_model_version_tag("assistant-candidates", "3", "verdict", "splendid")
    client.set_model_version_tag("assistant", "1", "state", "rejected")
    run = client.get_model_version("assistant-candidates", "3").run_id
    client.delete_run(client.get_model_version("assistant-candidates", "1").run_id)
    client.create_model_version("assistant", source=f"runs:/{run}/assistant", run_id=run)
    files = champion.home / "mlflow-artifacts" / run / "artifacts"
    (files / "reports" / "gate.html").write_text("all is well", encoding="utf-8")
    (files / "assistant" / "artifacts" / "assistant" / "manifest.json").unlink()
    assert _found(lcia(champion, "doctor", "--json").json, "mlflow")[0]["verdict"] == "problem"

    told = lcia(champion, "sync", "--as", "ops", "--json")
    kinds = {one["kind"]: one["repaired"] for one in told.json["differences"]}
    assert kinds == {
        **dict.fromkeys(["alias", "version", "tags", "copy tags", "run", "files"], True),
        "unknown": False,
    }
    assert (told.code, told.json["serves"]) == (0, learnt.digests[-1])
    assert [one["kind"] for one in lcia(champion, "sync", "--json").json["differences"]] == ["unknown"]
    entry = lcia(champion, "audit", "show", "--kind", "registry.repaired", "--json").json[0]
    assert (entry["actor"]["name"], len(entry["details"]["differences"])) == ("ops", len(told.json["differences"]))
    assert lcia(champion, "audit", "verify").code == 0


def test_sweep_deletes_and_retention_only_looks(lcia: "Lcia", champion: SmallLoop) -> None:
    no_grace = ("--set", "retention.grace_hours=0")
    before = lcia(champion, "retention", *no_grace, "--json").json
    old = lcia(champion, "retention", "--sweep", "--as", "ops", *no_grace)
    assert (old.code, "`lcia sweep` deletes" in old.err) == (1, True), "scripts of earlier releases learn the new name"
    assert lcia(champion, "retention", *no_grace, "--json").json == before, "nothing was deleted so far"
    swept = lcia(champion, "sweep", "--as", "ops", *no_grace, "--json").json
    assert before["going"]
    assert (swept["swept"], swept["going"]) == (True, before["going"])
    assert "0 objects that nothing needs would go" in lcia(champion, "retention", *no_grace).out


@pytest.mark.parametrize("group", [(), ("audit",), ("people",), ("keys",)], ids=str)
def test_help_shows_whole_sentences(lcia: "Lcia", fresh: SmallLoop, group: tuple[str, ...]) -> None:
    assert "..." not in lcia(fresh, *group, "--help").out.replace("COMMAND [ARGS]...", "")


# -- estimates --------------------------------------------------------------------------------------


def test_plan_estimates_money_where_prices_are_set(lcia: "Lcia", champion: SmallLoop, tmp_path: Path) -> None:
    from small_loop import write_package

    package = write_package(tmp_path / "more", "passive_voice", first=40, version="2")
    free = lcia(champion, "plan", package, "--json").json["cost"]
    assert free["basis"] == "3 earlier runs here"
    assert (free["money"], free["gpu_hours"], free["currency"]) == (None, 0, "EUR")
    prices = ["--set", "prices.cpu_hour=100", "--set", "prices.currency=CHF"]
    ended = lcia(champion, "plan", package, *prices, "--json")
    priced = ended.json["cost"]
    assert priced["money"] == pytest.approx(100 * priced["cpu_hours"], abs=0.01)
    assert "CHF" in lcia(champion, "plan", package, *prices).out


def test_doctor_says_what_confines_the_reader_and_whose_inbox_is_open(
    lcia: "Lcia", fresh: SmallLoop, tmp_path: Path
) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    for folder, mode in ((own, 0o755), (shared, 0o777)):
        folder.mkdir()
        folder.chmod(mode)
    text = fresh.config.read_text(encoding="utf-8")
    fresh.config.write_text(
        f"{text}\ninbox: {{url: {shared}, sites: {{north: {own}, south: {tmp_path}/none}}}}\n", encoding="utf-8"
    )
    value = lcia(fresh, "doctor", "--quick", "--json").json
    (reader,) = _found(value, "parser")
    assert "limits" in reader["words"]
    assert [(one["verdict"], one["words"].split(":")[0]) for one in _found(value, "inbox")] == [
        ("ok", "the inbox of north"),
        ("warning", "the inbox of south does not exist"),
        ("warning", "the inbox of all"),
    ]
