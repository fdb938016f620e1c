"""A real MLflow server that is down, slow, killed, emptied, or cut off in the middle of a promotion or a rollback.

What was decided is right at once; what MLflow serves is right after one `lcia sync`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qs, urlparse

import pytest
import yaml
from mlflow.tracking import MlflowClient
from mlflow_server import Line, MlflowServer, serving
from promotion_state import BOB, State, new_state

from components.audit.verify import verify_database
from components.promotion import champion
from components.registry.registry import Registry, RegistryError
from components.settings import load_settings
from lcia.instance import Instance
from lcia.operations import decisions, registry

pytestmark = pytest.mark.slow
ALIAS, COPY = "registered-models/alias HTTP", "/mlflow/model-versions/create"
"""Requests that move the champion's alias, and that copy a version to the promoted model."""
Fault: TypeAlias = Callable[["Site"], None]


@dataclass
class Site:
    """A state with a champion; MLflow is reached by a line."""

    state: State
    instance: Instance
    server: MlflowServer
    line: Line

    def mended(self) -> None:
        """All is well again."""
        self.line.mend()
        if not self.server.runs:
            self.server.start()

    def decided(self) -> tuple[str, str | None]:
        """The champion in the database, and what it says of MLflow."""
        with self.state.db.read() as connection:
            now = champion.current(connection, "a")
        assert now is not None
        return now.version, now.served

    def shown(self) -> str | None:
        """What MLflow serves, asked past the line."""
        return Registry(self.server.address, "mlflow-artifacts:/", "lcia", "a").champion()


@pytest.fixture(scope="module")
def shared(tmp_path_factory, empty_mlflow) -> Iterator[Site]:
    """One server and one state; each test promotes a version of its own, and rolls back to the champion before."""
    folder = tmp_path_factory.mktemp("site")
    state = new_state(folder)
    with serving(MlflowServer(folder, empty_mlflow)) as server:
        line = Line(server.port)
        told = {
            "assistant": "a",
            "storage": {"database": f"sqlite:///{folder}/state.db", "objects": f"file://{folder}/objects"},
            "registry": {"tracking_uri": line.address, "artifacts": "mlflow-artifacts:/"},
        }
        (folder / "zenml.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        home = folder / "home"
        instance = Instance.open(home, load_settings(folder / "zenml.yaml", [], home_folder=home))
        state.candidate("first", None)
        decisions.approve(instance, "1", BOB, "read")
        yield Site(state, instance, server, line)
        line.close()


@pytest.fixture
def site(shared: Site, monkeypatch) -> Site:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    shared.mended()
    return shared


def down(site: Site) -> None:
    site.line.cut("", "lost")


def slow(site: Site) -> None:
    site.line.slow(1.5)  # longer than `site` lets a request take


def alias_lost(site: Site) -> None:
    site.line.cut(ALIAS, "lost")


def alias_unanswered(site: Site) -> None:
    site.line.cut(ALIAS, "unanswered")


def copy_unanswered(site: Site) -> None:
    site.line.cut(COPY, "unanswered")


def killed(site: Site) -> None:
    site.line.cut(ALIAS, "lost", site.server.kill)


def emptied(site: Site) -> None:
    site.line.cut(ALIAS, "lost", site.server.wipe)


FAULTS = [(emptied, emptied), (down, slow), (slow, alias_unanswered), (alias_lost, down), (copy_unanswered, killed)]
"""Of a promotion and of the rollback after it; a rollback copies nothing."""


@pytest.mark.parametrize(("first", "second"), FAULTS)
def test_decided_at_once_and_served_after_one_sync(site: Site, first: Fault, second: Fault) -> None:
    before, _ = site.decided()
    made = site.state.candidate(first.__name__, before)
    assert all(one.ok for one in site.instance.tell_registry())

    first(site)
    decisions.approve(site.instance, str(made.number), BOB, "read")
    assert site.decided() == (made.digest, before)  # and not more than is known is said of MLflow
    synced(site, made.digest, first)

    second(site)
    decisions.rollback(site.instance, before, BOB, "complaints")
    assert site.decided() == (before, made.digest)
    synced(site, before, second)
    with site.state.db.read() as connection:
        assert verify_database(connection).ok


def synced(site: Site, expected: str, fault: Fault) -> None:
    """All is right after one sync, and nobody is blamed for what the network did."""
    site.mended()
    told = registry.sync(site.instance, BOB)
    assert told["ok"], told
    assert (site.decided(), site.shown()) == ((expected, expected), expected)
    assert {one["kind"] for one in told["differences"]} == ({"version", "alias"} if fault is emptied else set())


def test_the_page_that_compares_names_each_version_with_its_run(site) -> None:
    digest, _ = site.decided()
    page = site.instance.registry.compare_page([digest])
    assert page is not None
    asked = parse_qs(urlparse(page).fragment.partition("?")[2])
    client = MlflowClient(site.server.address)
    known = client.search_model_versions(f"name = 'a-candidates' and tags.digest = '{digest}'")
    assert json.loads(asked["runs"][0]) == {str(known[0].version): known[0].run_id}
    assert json.loads(asked["name"][0]) == "a-candidates"
    with pytest.raises(RegistryError, match="no version with digest"):
        site.instance.registry.compare_page(["0" * 64])
