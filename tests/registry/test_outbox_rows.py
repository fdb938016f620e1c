"""What MLflow lost or refuses keeps nothing else waiting, is said, and is published again; on SQLite and PostgreSQL."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.cli import gc
from mlflow.entities import ViewType
from private_postgresql import Cluster
from promotion_state import BOB, SITE, State, client
from sqlalchemy import Connection, select, update
from sqlalchemy import text as sql

from components.audit.log import SYSTEM
from components.notices import notices
from components.promotion import approvals, champion
from components.promotion.reconcile import reconcile
from components.registry import limits
from components.registry.differences import ExpectedVersion
from components.registry.limits import cut_to
from components.registry.outbox import apply_outbox, backlog, enqueue
from components.registry.registry import Registry
from components.registry.replay import replay
from components.retention.sweep import Books
from components.settings import ApprovalSettings, PolicySettings
from components.storage import tables
from components.storage.database import now
from components.storage.fence import OutsideRoot

AUTO = PolicySettings(approval=ApprovalSettings(auto=True))
MLFLOW_TEMPLATE = "mlflow_template"


def promote(state: State, version: int | str) -> None:
    champion.promote(
        state.db, state.store, assistant="a", version=version, actor=SYSTEM, policy=AUTO, reason="go", automatic=True
    )


def deliver(state: State, registry: Registry, *, retry: bool = True) -> list[tuple[str, bool]]:
    return [(one.kind, one.ok) for one in apply_outbox(state.db, state.store, registry, retry=retry)]


def synced(state: State, registry: Registry) -> dict[str, bool]:
    """What `lcia sync` does; differences by kind, and whether they were repaired."""
    deliver(state, registry)
    found = reconcile(state.db, state.store, registry, SITE)
    deliver(state, registry)
    found += reconcile(state.db, state.store, registry, SITE)
    return {one.difference.kind: one.repaired for one in found}


def served(state: State) -> tuple[str, str | None]:
    """Decided, and served."""
    with state.db.read() as connection:
        now = champion.current(connection, "a")
    assert now is not None
    return now.version, now.served


def waiting(state: State) -> list[tuple[str, int | None, bool]]:
    with state.db.read() as connection:
        return [(row.kind, row.number, row.parked_at is not None) for row in backlog(connection, "a")]


def collected(registry: Registry, tmp_path: Path, *runs: str) -> None:
    """MLflow's own garbage collection, `mlflow gc`: what was deleted goes from its database, with its files."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    chosen = ["--run-ids", ",".join(runs)] if runs else []
    gc.main(["--backend-store-uri", store, "--tracking-uri", store, *chosen], standalone_mode=False)


@pytest.fixture
def two(state: State, registry: Registry) -> list[str]:
    """Two champions, one after the other, of which MLflow was told."""
    first = state.candidate("news", None)
    promote(state, 1)
    second = state.candidate("mail", first.digest)
    promote(state, 2)
    assert all(ok for _, ok in deliver(state, registry))
    assert served(state) == (second.digest, second.digest)
    return [first.digest, second.digest]


def run_of(registry: Registry, digest: str) -> str:
    return str(client(registry).search_model_versions(f"name = 'a-candidates' and tags.digest = '{digest}'")[0].run_id)


# -- lost in MLflow ---------------------------------------------------------------------------------


def test_a_deleted_run_is_brought_back(state: State, registry: Registry, two: list[str]) -> None:
    client(registry).delete_run(run_of(registry, two[0]))
    champion.rollback(state.db, state.store, assistant="a", version=1, actor=SITE, reason="worse")
    assert deliver(state, registry) == [("rollback", False)]
    assert waiting(state) == [("rollback", 1, True)]
    assert served(state) == (two[0], two[1])
    assert synced(state, registry) == {"run": True}
    assert served(state) == (two[0], two[0])


def test_a_run_that_was_collected_is_published_again(
    state: State, registry: Registry, two: list[str], tmp_path: Path
) -> None:
    """The champion's run: deleted and gone from MLflow's database with its files, while its versions point to it."""
    lost = run_of(registry, two[1])
    client(registry).delete_run(lost)
    collected(registry, tmp_path, lost)
    found = {one.difference.kind: one for one in reconcile(state.db, state.store, registry, SITE)}
    assert "version" in found
    assert all(one.repaired for one in found.values())
    assert run_of(registry, two[1]) != lost
    assert registry.champion() == two[1]
    assert served(state) == (two[1], two[1])
    assert reconcile(state.db, state.store, registry, SITE) == []


def test_the_check_goes_on_beyond_what_it_cannot_compare(
    state: State, registry: Registry, two: list[str], tmp_path: Path
) -> None:
    client(registry).delete_run(run_of(registry, two[0]))
    collected(registry, tmp_path, run_of(registry, two[0]))
    client(registry).set_model_version_tag("a-candidates", "2", "state", "by hand")
    state.damage(_folder(state, two[0]))
    found = reconcile(state.db, state.store, registry, SITE)
    assert {one.difference.kind for one in found} >= {"unclear", "version", "tags"}
    assert {one.repaired for one in found if one.difference.kind == "tags"} == {True}
    assert served(state) == (two[1], two[1]), "the champion is whole"


def test_a_deleted_experiment_and_a_deleted_model_come_back(
    state: State, registry: Registry, two: list[str], tmp_path: Path
) -> None:
    mlflow = client(registry)
    mlflow.delete_experiment(mlflow.get_experiment_by_name("lcia").experiment_id)
    assert synced(state, registry) == {"run": True}
    for name in ("a", "a-candidates"):
        mlflow.delete_registered_model(name)
    assert set(synced(state, registry).values()) == {True}
    assert (registry.champion(), served(state)) == (two[1], (two[1], two[1]))
    mlflow.delete_experiment(mlflow.get_experiment_by_name("lcia").experiment_id)
    collected(registry, tmp_path)
    assert set(synced(state, registry).values()) == {True}
    assert (registry.champion(), served(state)) == (two[1], (two[1], two[1]))
    assert reconcile(state.db, state.store, registry, SITE) == []


def folder_of(registry: Registry, tmp_path: Path, digest: str) -> Path:
    return tmp_path / "art ifacts" / run_of(registry, digest) / "artifacts"


@pytest.mark.parametrize("change", ["another digest", "no digest", "another experiment"])
def test_forgetting_finds_the_run_by_its_version_too(
    state: State, registry: Registry, two: list[str], tmp_path: Path, change: str
) -> None:
    """A run that somebody gave another tag, or moved, is not found by looking for tags."""
    mlflow, run, folder = client(registry), run_of(registry, two[0]), folder_of(registry, tmp_path, two[0])
    if change == "another digest":
        mlflow.set_tag(run, "digest", "e" * 64)
    elif change == "no digest":
        mlflow.delete_tag(run, "digest")
    else:
        other = mlflow.create_experiment("another")
        with sqlite3.connect(tmp_path / "mlflow.db") as connection:
            connection.execute("UPDATE runs SET experiment_id = ? WHERE run_uuid = ?", (other, run))
    kind = "experiment" if change == "another experiment" else "run tags"
    found = registry.differences(_told(state), two[1])
    assert [one.kind for one in found] == [kind]
    assert registry.forget(two[0]) == 2
    assert not folder.exists()
    assert folder_of(registry, tmp_path, two[1]).is_dir()


def test_the_tags_of_a_run_are_set_again(state: State, registry: Registry, two: list[str]) -> None:
    run = run_of(registry, two[0])
    client(registry).set_tag(run, "state", "rejected")
    client(registry).delete_run(run)
    assert synced(state, registry) == {"run": True, "run tags": True}
    assert client(registry).get_run(run).data.tags["state"] == "promoted"
    assert reconcile(state.db, state.store, registry, SITE) == []


def test_forgetting_leaves_the_run_of_another_version(
    state: State, registry: Registry, two: list[str], tmp_path: Path
) -> None:
    """Somebody gave it the digest of the one that goes, by a tag and by a version of their own."""
    mlflow, run = client(registry), run_of(registry, two[1])
    mlflow.create_model_version("a-candidates", f"runs:/{run}/assistant", run, tags={"digest": two[0]})
    registry.forget(two[0])
    assert any(folder_of(registry, tmp_path, two[1]).iterdir())
    first = mlflow.search_model_versions(f"name = 'a-candidates' and tags.digest = '{two[1]}'")
    assert [version.run_id for version in first] == [run]


@pytest.mark.parametrize("level", ["artifacts", "run"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_link_in_place_of_a_runs_files_is_said_and_not_followed(
    state: State, registry: Registry, two: list[str], tmp_path: Path, level: str, inside: bool
) -> None:
    """Below the root it leads to the files of another version, outside to somebody's."""
    ours, others = folder_of(registry, tmp_path, two[0]), folder_of(registry, tmp_path, two[1])
    if not inside:
        others = Path(shutil.copytree(others.parent, tmp_path / "elsewhere" / "run")) / "artifacts"
    before = sorted(others.rglob("*"))
    link, target = (ours, others) if level == "artifacts" else (ours.parent, others.parent)
    if level == "artifacts" and inside:
        target = Path(shutil.copytree(others, tmp_path / "art ifacts" / "copied"))
    shutil.rmtree(link)
    link.symlink_to(target)
    (place,) = reconcile(state.db, state.store, registry, SITE)
    assert (place.difference.kind, place.repaired) == ("place", False)
    assert "a link leads from there to" in place.difference.words
    with pytest.raises(OutsideRoot, match=r"link|outside"):
        registry.forget(two[0])
    assert sorted(others.rglob("*")) == before
    assert any(target.iterdir())
    link.unlink()
    assert synced(state, registry) == {"files": True}
    assert reconcile(state.db, state.store, registry, SITE) == []


def test_a_link_within_a_runs_files_is_replaced(
    state: State, registry: Registry, two: list[str], tmp_path: Path
) -> None:
    """What it leads to, another version's model, stays as it is."""
    ours, others = (folder_of(registry, tmp_path, digest) / "assistant" for digest in two)
    before = {path: path.read_bytes() for path in others.rglob("*") if path.is_file()}
    shutil.rmtree(ours)
    ours.symlink_to(others)
    found = reconcile(state.db, state.store, registry, SITE)
    assert [(one.difference.kind, one.repaired, one.why_not) for one in found] == [("files", True, "")]
    assert not ours.is_symlink()
    assert {path: path.read_bytes() for path in others.rglob("*") if path.is_file()} == before
    assert reconcile(state.db, state.store, registry, SITE) == []


def _told(state: State) -> dict[str, ExpectedVersion]:
    with state.db.read() as connection:
        return replay(connection, state.store, "a", None).versions


# -- refused by MLflow ------------------------------------------------------------------------------


def test_a_row_that_cannot_be_told_waits_alone(state: State, registry: Registry) -> None:
    """Version 1's row is damaged; its other rows wait for it, those of version 2 do not."""
    first = state.candidate("news", None)
    _spoil(state, {"files": {"reports/gate.html": "f" * 64}})
    promote(state, 1)
    second = state.candidate("mail", first.digest)
    promote(state, 2)
    assert deliver(state, registry) == [("candidate", False), ("candidate", True), ("state", True), ("promote", True)]
    assert served(state) == (second.digest, second.digest)
    assert waiting(state) == [("candidate", 1, True), ("state", 1, False), ("promote", 1, False)]
    assert deliver(state, registry, retry=False) == [], "what was refused is not tried at every call"
    with state.db.read() as connection:
        row = backlog(connection, "a")[0]
    assert (row.attempts, "ffffff" in row.error) == (1, True)
    assert row.to_json()["parked_at"] is not None

    _spoil(state, None)
    assert deliver(state, registry) == [("candidate", True), ("state", True), ("promote", True)]
    assert registry.champion() == second.digest, "a decision that was told late does not undo a later one"
    assert served(state) == (second.digest, second.digest)
    assert waiting(state) == []
    tags = client(registry).search_model_versions(f"name = 'a' and tags.digest = '{first.digest}'")[0].tags
    assert tags["epoch"] == "1"


def test_whatever_is_in_a_row_the_others_are_told(state: State, registry: Registry) -> None:
    with state.db.begin() as connection:
        for payload in ({"digest": "x"}, {"digest": 7}, {}):
            enqueue(connection, "a", "state", payload)
        enqueue(connection, "a", "nonsense", {"digest": "y"})
    state.candidate("news", None)
    done = deliver(state, registry)
    assert [kind for kind, ok in done if ok] == ["candidate"]
    assert len(done) == 5
    assert [parked for _, _, parked in waiting(state)] == [True] * 4


@pytest.mark.parametrize("kind", ["state", "marks"])
def test_a_tag_that_mlflow_refuses_keeps_no_decision_waiting(
    state: State, registry: Registry, two: list[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The rollback is told; the tag, told later, does not undo what was told since."""
    with state.db.begin() as connection:
        enqueue(connection, "a", kind, {"digest": two[0], "number": 1, "state": "rejected", "marks": ["old"]})
    champion.rollback(state.db, state.store, assistant="a", version=1, actor=SITE, reason="worse")
    with monkeypatch.context() as patch:  # a name that MLflow takes for no tag
        patch.setattr(Registry, "tag", _refuse_tags)
        assert deliver(state, registry) == [(kind, False), ("rollback", True)]
        assert served(state) == (two[0], two[0])
        assert waiting(state) == [(kind, 1, True)]
        with state.db.begin() as connection:
            enqueue(connection, "a", kind, {"digest": two[0], "number": 1, "state": "promoted", "marks": ["new"]})
        assert deliver(state, registry, retry=False) == [], "a later one of its kind waits"
    assert deliver(state, registry) == [(kind, True)] * 2
    assert reconcile(state.db, state.store, registry, SITE) == []


def _refuse_tags(self: Registry, digest: str, tags: dict[str, str], *_: object) -> None:
    with self._talk() as mlflow:
        mlflow.set_model_version_tag(self.candidates_name, "1", "/", "x" * 9999)


def test_a_tag_told_late_is_as_the_rows_after_it_left_it(state: State, registry: Registry) -> None:
    """The promotion gives the copy marks of its own; the older row comes after it."""
    version = state.candidate("news", None, marks=["old"])
    deliver(state, registry)
    with state.db.begin() as connection:
        enqueue(connection, "a", "marks", {"digest": version.digest, "number": 1, "marks": ["older"]})
        late = connection.execute(select(tables.outbox.c.id).order_by(tables.outbox.c.id.desc())).scalars().first()
        connection.execute(update(tables.outbox).where(tables.outbox.c.id == late).values(done_at=now(connection)))
    promote(state, 1)
    deliver(state, registry)
    with state.db.begin() as connection:
        connection.execute(update(tables.outbox).where(tables.outbox.c.id == late).values(done_at=None))
    assert deliver(state, registry) == [("marks", True)]
    assert reconcile(state.db, state.store, registry, SITE) == []


NO_PAYLOADS = ["[]", "7", "null", "{broken", "{}", '{"digest": null}', '{"digest": ["a"]}', '"text"', '{"tags": 1}']


def test_whatever_a_payload_is_the_others_are_told_and_it_is_said(
    state: State, registry: Registry, tmp_path: Path
) -> None:
    with state.db.begin() as connection:
        for number, kind in enumerate(("candidate", "state", "marks", "forget", "promote", "rollback", "what") * 9):
            enqueue(connection, "a", kind, {})
            _put(connection, NO_PAYLOADS[number // 7])
    version = state.candidate("news", None)
    promote(state, 1)
    done = deliver(state, registry)
    assert [kind for kind, ok in done if ok] == ["candidate", "state", "promote"]
    assert len(done) == 66
    assert served(state) == (version.digest, version.digest)
    with state.db.read() as connection:
        rows = backlog(connection, "a")
        books = Books.read(connection)
    assert {(row.parked_at is not None, "is damaged" in row.error, row.what) for row in rows} == {
        (True, True, kind) for kind in ("candidate", "state", "marks", "forget", "promote", "rollback", "what")
    }
    assert version.digest in books.in_mlflow
    assert reconcile(state.db, state.store, registry, SITE) == []


@pytest.mark.parametrize("text", ["[]", "{broken", '{"tags": 1}'])
def test_a_told_row_that_was_damaged_since_is_said_and_moves_no_alias(
    state: State, registry: Registry, two: list[str], text: str
) -> None:
    with state.db.begin() as connection:
        _put(connection, text)  # the promotion of version 2
    found = reconcile(state.db, state.store, registry, SITE)
    assert [(one.difference.kind, one.repaired) for one in found] == [("unclear", False)]
    assert "(promote) is damaged" in found[0].difference.words
    assert registry.champion() == two[1]


def _put(connection: Connection, text: str) -> None:
    """Let the newest row have this payload."""
    query = sql("UPDATE outbox SET payload = :text WHERE id = (SELECT max(id) FROM outbox)")
    connection.execute(query, {"text": text})


def test_nothing_that_waited_is_told_of_a_version_that_was_forgotten(state: State, registry: Registry) -> None:
    version = state.candidate("news", None)
    _spoil(state, {"files": {"reports/gate.html": "f" * 64}})
    approvals.reject(state.db, assistant="a", version=1, actor=BOB, reason="no")
    deliver(state, registry)
    assert len(waiting(state)) == 2
    with state.db.begin() as connection:
        enqueue(connection, "a", "forget", {"digest": version.digest, "number": 1})
    assert deliver(state, registry)[-1] == ("forget", True)
    assert waiting(state) == []
    assert client(registry).search_model_versions("name = 'a-candidates'") == []


def test_forgetting_takes_the_files_of_deleted_runs_too(state: State, registry: Registry, tmp_path: Path) -> None:
    version = state.candidate("news", None)
    deliver(state, registry)
    run = run_of(registry, version.digest)
    client(registry).delete_run(run)
    folder = tmp_path / "art ifacts" / run / "artifacts"
    assert folder.is_dir()
    assert registry.forget(version.digest) == 1
    assert not folder.exists()
    known = client(registry).search_runs(["1"], run_view_type=ViewType.DELETED_ONLY)
    assert [one.data.tags.get("erased") for one in known] == [version.digest]


def test_people_are_told_once_of_what_mlflow_refused(state: State, registry: Registry) -> None:
    state.candidate("news", None)
    _spoil(state, {"files": {"reports/gate.html": "f" * 64}})
    deliver(state, registry)
    with state.db.begin() as connection:
        assert notices.warn_of_refusals(connection, "a", ["mail"], "https://lcia") == 1
        assert notices.warn_of_refusals(connection, "a", ["mail"], "https://lcia") == 0
        (notice,) = notices.waiting(connection, "a")
    assert (notice.payload["title"], notice.payload["link"]) == (
        "MLflow refused: candidate of version 1",
        "https://lcia/versions/1",
    )
    assert "ffffff" in notice.payload["text"]


# -- what MLflow's stores take ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlflow_cluster(postgresql: Cluster) -> Cluster:
    """MLflow's own tables on PostgreSQL, to be copied."""
    postgresql.execute(f"CREATE DATABASE {MLFLOW_TEMPLATE}")
    made = Registry(postgresql.url(MLFLOW_TEMPLATE), "/nowhere", "x", "a")
    assert made.champion() is None
    mine = f"datname = '{MLFLOW_TEMPLATE}'"  # MLflow keeps connections open, and nobody may copy it meanwhile
    postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")
    return postgresql


@pytest.fixture(params=["sqlite", "postgresql"])
def any_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """MLflow on each of the databases it has."""
    if request.param == "sqlite":
        yield request.getfixturevalue("registry")
        return
    cluster: Cluster = request.getfixturevalue("mlflow_cluster")
    name = cluster.new(MLFLOW_TEMPLATE)
    made = Registry(cluster.url(name), str(tmp_path / "files"), "lcia", "a")
    yield made
    cluster.drop(name)


LONG = "Größe 数据 " * 2000
"""16,000 characters, of which PostgreSQL counts characters and not bytes."""


def test_long_texts_are_shown_as_far_as_they_fit(tmp_path: Path, any_registry: Registry) -> None:
    names = ["m" * 63, *(f"task_{i}" for i in range(12))]
    publication = {
        "digest": "d" * 64,
        "number": 7,
        "description": f"# card\n{LONG}",
        "tags": {"marks": LONG, "task": f"{names[0]}@{'9' * 32}", "state": "pending"},
        "params": {"changed_settings": LONG, "task": "x"},
        "metrics": {f"gate/step margin/{name}@1": 0.5 for name in names},
        "curves": {"loss": [[step, 1.0] for step in range(1, 2500)]},
        "datasets": [
            {"name": f"{n} {LONG}"[:600], "digest": f"{n:064d}", "context": "train", "source": "t" * 64}
            for n in range(3)
        ],
    }
    folder = tmp_path / "folder"
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "card.md").write_text(publication["description"], encoding="utf-8")
    for _ in range(2):  # once more, as after a crash
        assert any_registry.publish_candidate(publication, folder).version == 1
    any_registry.tag("d" * 64, {"state": "rejected", "marks": LONG})
    any_registry.promote("d" * 64, {"marks": LONG})
    any_registry.follow("k" * 64, LONG, {"task": LONG}, {"loss": [[1, 1.0]]})
    any_registry.unfollow("k" * 64, LONG)
    version = client(any_registry).get_model_version("a-candidates", "1")
    assert len(version.description) == limits.DESCRIPTION
    assert version.description.startswith("# card\nGröße 数据")
    assert version.description.endswith("MLflow takes 5000; the whole card is the file reports/card.md of the run]")
    run = client(any_registry).get_run(version.run_id)
    assert len(run.data.tags["mlflow.note.content"]) == len(run.data.tags["marks"]) == limits.RUN_TAG
    assert len(run.data.params["changed_settings"]) == limits.PARAM
    assert run.data.metrics[f"gate/step margin/{names[0]}:1"] == 0.5
    assert len(run.inputs.dataset_inputs) == 3
    assert any_registry.champion() == "d" * 64


def test_the_card_of_a_version_with_many_changed_tasks_is_told_and_compared(
    state: State, any_registry: Registry
) -> None:
    """A card of more than 5,000 characters: twelve earlier tasks that changed reach it."""
    version = state.candidate("news", None, marks=[LONG])
    _spoil(state, {"description": LONG})
    promote(state, 1)
    assert deliver(state, any_registry) == [("candidate", True), ("state", True), ("promote", True)]
    assert served(state) == (version.digest, version.digest)
    assert reconcile(state.db, state.store, any_registry, SITE) == []


def test_what_is_cut_says_so() -> None:
    assert cut_to("short", 5) == "short"
    assert cut_to("nul\0", 5) == "nul"
    cut = cut_to("x" * 100, 60)
    assert (len(cut), cut.endswith("[cut: 100 characters, MLflow takes 60]")) == (60, True)


def _spoil(state: State, changes: dict | None) -> None:
    """Change the payload of the first row that publishes a candidate, as no program of ours would; None mends it."""
    table = tables.outbox
    with state.db.begin() as connection:
        query = select(table.c.id, table.c.payload).where(table.c.kind == "candidate").order_by(table.c.id)
        found = connection.execute(query).first()
        assert found is not None
        kept = {**found.payload, **(changes or {})}
        if changes is None:
            kept["files"] = {"assistant/manifest.json": found.payload["digest"]}
        connection.execute(update(table).where(table.c.id == found.id).values(payload=kept))


def _folder(state: State, digest: str) -> str:
    return str(state.store.get_json(digest)["groups"][0]["adapter"])
