"""A state that was copied or moved: its MLflow records name another place's files, which are never touched."""

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from promotion_state import SITE, State, client
from sqlalchemy import select, update

from components.audit.log import SYSTEM
from components.promotion import champion
from components.promotion.reconcile import reconcile
from components.registry import locations
from components.registry.differences import ExpectedVersion
from components.registry.locations import PlaceTooLong, StateMoved
from components.registry.outbox import apply_outbox, enqueue
from components.registry.registry import Registry, RegistryError
from components.registry.replay import replay
from components.settings import ApprovalSettings, PolicySettings
from components.storage import tables
from components.storage.database import Database
from components.storage.fence import OutsideRoot
from components.storage.objects import ObjectStore

pytestmark = pytest.mark.slow

AUTO = PolicySettings(approval=ApprovalSettings(auto=True))


@dataclass
class Home:
    """A state folder with a champion (version 2) that MLflow serves, and one before it."""

    state: State
    registry: Registry

    @property
    def folder(self) -> Path:
        return self.state.folder

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def files(self) -> dict[str, bytes]:
        root = self.folder / "artifacts"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def deliver(self, retry: bool = True) -> list[tuple[str, bool]]:
        done = apply_outbox(self.state.db, self.state.store, self.registry, retry=retry)
        return [(one.kind, one.ok) for one in done]

    def served(self) -> str | None:
        with self.state.db.read() as connection:
            return connection.execute(select(tables.champion.c.served)).scalar_one_or_none()

    def told(self, digest: str) -> ExpectedVersion:
        with self.state.db.read() as connection:
            return replay(connection, self.state.store, "a", None).versions[digest]

    def mended(self) -> int:
        old = self.registry.moved_from()
        assert old is not None
        return locations.correct(self.uri, self.folder, old, str(self.folder / "artifacts"))


def home(folder: Path) -> Home:
    db = Database(f"sqlite:///{folder}/state.db")
    db.migrate()
    registry = Registry(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts"), "lcia", "a")
    return Home(State(folder, db, ObjectStore(f"file://{folder}/objects")), registry)


@pytest.fixture
def original(tmp_path: Path, empty_mlflow: Path) -> Home:
    (tmp_path / "the original").mkdir()
    shutil.copy(empty_mlflow, tmp_path / "the original" / "mlflow.db")
    made = home(tmp_path / "the original")
    parent = None
    for name in ("news", "mail"):
        version = made.state.candidate(name, parent)
        champion.promote(
            made.state.db, made.state.store, assistant="a", version=version.digest, actor=SYSTEM, policy=AUTO,
            reason="go", automatic=True,
        )  # fmt: skip
        parent = version.digest
    assert all(ok for _, ok in made.deliver())
    return made


@pytest.fixture
def copy(original: Home, tmp_path: Path) -> Home:
    shutil.copytree(original.folder, tmp_path / "copy")
    return home(tmp_path / "copy")


def test_a_copy_says_where_it_was_copied_from_and_the_original_nothing(original: Home, copy: Home) -> None:
    place = (original.folder / "artifacts").as_uri()
    assert (original.registry.moved_from(), copy.registry.moved_from()) == (None, place)
    assert locations.recorded_place(copy.uri, "lcia") == place
    assert locations.recorded_place(copy.uri, "another") is None
    assert locations.recorded_place(f"sqlite:///{copy.folder}/none.db", "lcia") is None
    assert not (copy.folder / "none.db").exists(), "looking made a database"
    assert locations.recorded_place("http://127.0.0.1:1", "lcia") is None


def test_nothing_of_the_original_is_written_or_deleted(original: Home, copy: Home) -> None:
    before = original.files()
    first, second = _lineage(copy)
    champion.rollback(copy.state.db, copy.state.store, assistant="a", version=first, actor=SITE, reason="worse")
    assert copy.deliver() == [("rollback", False)]
    assert copy.served() == second, "nothing else was seen"
    with copy.state.db.begin() as connection:
        enqueue(connection, "a", "forget", {"digest": first, "number": 1})
    copy.deliver()
    with pytest.raises(OutsideRoot, match="lcia sync"):
        copy.registry.forget(first)
    with pytest.raises(OutsideRoot, match="lcia sync"):
        copy.registry.keep_head("1.head", b"head")
    assert original.files() == before
    assert len(client(copy.registry).search_model_versions("name = 'a'")) == 2, "no version was deleted either"


def test_a_copy_that_was_mended_works_on_its_own_files(original: Home, copy: Home) -> None:
    before = original.files()
    assert copy.mended() == 3  # the experiment and two runs
    first, second = _lineage(copy)
    assert reconcile(copy.state.db, copy.state.store, copy.registry, SITE) == []
    champion.rollback(copy.state.db, copy.state.store, assistant="a", version=first, actor=SITE, reason="worse")
    assert copy.deliver() == [("rollback", True)]
    assert copy.served() == first
    copy.registry.forget(second)
    assert 0 < len(copy.files()) < len(before)
    assert original.files() == before
    version = client(copy.registry).get_model_version_by_alias("a", "champion")
    run = client(copy.registry).get_run(version.run_id)
    assert run.info.artifact_uri == (copy.folder / "artifacts" / version.run_id / "artifacts").as_uri()


def test_a_moved_state_is_not_called_served_until_it_is_mended(original: Home, tmp_path: Path) -> None:
    _, second = _lineage(original)
    original.folder.rename(tmp_path / "moved")
    moved = home(tmp_path / "moved")
    found = reconcile(moved.state.db, moved.state.store, moved.registry, SITE)
    assert {(one.difference.kind, one.repaired) for one in found} == {("place", False)}
    assert moved.served() is None
    moved.mended()
    assert reconcile(moved.state.db, moved.state.store, moved.registry, SITE) == []
    assert moved.served() == second


def test_places_are_corrected_whole_names_at_a_time(copy: Home, original: Home) -> None:
    near = f"{(original.folder / 'artifacts').as_uri()}-of-somebody-else/run"
    with contextlib.closing(sqlite3.connect(copy.folder / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE model_versions SET source = ? WHERE name = 'a'", (near,))
        plain = f"{original.folder}/artifacts/by hand"
        connection.execute("UPDATE model_versions SET source = ? WHERE name = 'a-candidates'", (plain,))
    copy.mended()
    sources = {v.name: v.source for v in client(copy.registry).search_model_versions()}
    assert sources == {"a": near, "a-candidates": (copy.folder / "artifacts").as_uri() + "/by hand"}


def test_records_that_another_state_may_share_are_left(copy: Home, tmp_path: Path) -> None:
    old = copy.registry.moved_from()
    assert old is not None
    for uri in (f"sqlite:///{tmp_path}/the original/mlflow.db", "postgresql+psycopg://x@/mlflow", "http://mlflow"):
        with pytest.raises(StateMoved, match=r"registry\.tracking_uri of its own"):
            locations.correct(uri, copy.folder, old, str(copy.folder / "artifacts"))


def test_links_inside_the_root_are_replaced_and_not_followed(original: Home, tmp_path: Path) -> None:
    """A run's folder or a file of it that is a link leads to somebody else's files."""
    _, second = _lineage(original)
    version = client(original.registry).get_model_version_by_alias("a", "champion")
    files = original.folder / "artifacts" / version.run_id / "artifacts"
    other = tmp_path / "somebody else's.html"
    other.write_text("theirs")
    (files / "reports" / "gate.html").unlink()
    (files / "reports" / "gate.html").symlink_to(other)
    found = reconcile(original.state.db, original.state.store, original.registry, SITE)
    assert [(one.difference.kind, one.repaired) for one in found] == [("files", True)]
    assert other.read_text() == "theirs"
    assert not (files / "reports" / "gate.html").is_symlink()

    files.rename(tmp_path / "theirs")
    files.symlink_to(tmp_path / "theirs")
    theirs = sorted((tmp_path / "theirs").rglob("*"))
    with pytest.raises(OutsideRoot):
        original.registry.upload(second, original.folder / "objects")
    found = reconcile(original.state.db, original.state.store, original.registry, SITE)
    assert {one.difference.kind for one in found} == {"place"}
    assert sorted((tmp_path / "theirs").rglob("*")) == theirs


def test_hard_links_are_broken_before_they_are_written(original: Home, copy: Home) -> None:
    """`cp -al` makes copies that share their files."""
    shutil.rmtree(copy.folder / "artifacts")
    shutil.copytree(
        original.folder / "artifacts", copy.folder / "artifacts", copy_function=lambda a, b: Path(b).hardlink_to(a)
    )
    copy.mended()
    before = original.files()
    _, second = _lineage(copy)
    (copy.folder / "new" / "reports").mkdir(parents=True)
    (copy.folder / "new" / "reports" / "gate.html").write_text("the copy's own")
    copy.registry.upload(second, copy.folder / "new")
    assert original.files() == before
    assert b"the copy's own" in copy.files().values()


def test_a_place_that_postgresql_has_no_room_for_is_refused(tmp_path: Path) -> None:
    long = (tmp_path / ("x" * 200)).as_uri()
    locations.need_short(long, f"sqlite:///{tmp_path}/mlflow.db")
    locations.need_short(None, "http://mlflow")
    with pytest.raises(PlaceTooLong, match="for each run adds 43"):
        locations.need_short(long, "postgresql+psycopg://x@/mlflow")


def test_a_version_that_leads_elsewhere_is_not_loadable(original: Home) -> None:
    """Source, run and files, and the very version under the alias."""
    mlflow = client(original.registry)
    _, second = _lineage(original)
    served = mlflow.get_model_version_by_alias("a", "champion")
    hand_made = mlflow.create_model_version("a", source="/tmp/elsewhere", run_id=served.run_id, tags={"digest": second})
    mlflow.set_registered_model_alias("a", "champion", hand_made.version)
    found = reconcile(original.state.db, original.state.store, original.registry, SITE)
    assert {one.difference.kind: one.repaired for one in found} == {"alias": True, "unknown": False}
    assert mlflow.get_model_version_by_alias("a", "champion").version == served.version
    for lost in ("MLmodel", "mlflow_model.py", "code"):
        path = original.folder / "artifacts" / served.run_id / "artifacts" / "assistant" / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        told = original.told(second)
        with pytest.raises(RegistryError, match=f"assistant/{lost}"):
            original.registry.need_loadable(second, told)
        found = reconcile(original.state.db, original.state.store, original.registry, SITE)
        assert ("files", True) in {(one.difference.kind, one.repaired) for one in found}
        original.registry.need_loadable(second, original.told(second))


@pytest.mark.parametrize("change", ["MLmodel", "mlflow_model.py", "code/components/errors.py", "code/torch.py"])
def test_what_mlflow_packed_around_a_model_is_compared_by_content(original: Home, change: str) -> None:
    """Foreign code in `code/` or in the description runs when the model is loaded; an added file shadows a library."""
    _, second = _lineage(original)
    served = client(original.registry).get_model_version_by_alias("a", "champion")
    path = original.folder / "artifacts" / served.run_id / "artifacts" / "assistant" / change
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + b"\n# raise SystemExit\n")
    with pytest.raises(RegistryError, match=f"assistant/{change}.*can't be loaded"):
        original.registry.need_loadable(second, original.told(second))
    compiled = path.parent / "__pycache__" / "errors.cpython-311.pyc"
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(b"foreign")
    found = reconcile(original.state.db, original.state.store, original.registry, SITE)
    assert [(one.difference.kind, one.repaired) for one in found] == [("files", True)]
    assert (change == "MLmodel") or (path.read_bytes() if path.exists() else None) == before
    assert b"raise SystemExit" not in (path.read_bytes() if path.exists() else b"")
    assert not compiled.exists()
    assert reconcile(original.state.db, original.state.store, original.registry, SITE) == []
    original.registry.need_loadable(second, original.told(second))
    assert original.served() == second


def test_a_packing_published_before_digests_were_kept_is_packed_anew(original: Home) -> None:
    with original.state.db.begin() as connection:
        connection.execute(update(tables.outbox).values(packing=None))
    first, second = _lineage(original)
    original.registry.need_loadable(second, original.told(second))
    found = reconcile(original.state.db, original.state.store, original.registry, SITE)
    assert sorted((one.difference.kind, one.repaired) for one in found) == [("packing", True), ("packing", True)]
    assert reconcile(original.state.db, original.state.store, original.registry, SITE) == []
    assert all(original.told(digest).packing for digest in (first, second))


def _lineage(made: Home) -> list[str]:
    with made.state.db.read() as connection:
        return list(dict.fromkeys(one.version for one in champion.lineage(connection, "a")))
