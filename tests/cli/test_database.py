"""The verbs of the database's administrator."""

from typing import TYPE_CHECKING

from components.storage.database import Database

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia


def test_roles_print_sql_for_psql(lcia: "Lcia", fresh):
    shown = lcia(fresh, "database", "roles", "--prefix", "north", "--json").json
    assert shown["accounts"] == ["north_worker", "north_service", "north_promoter", "north_keeper"]
    ended = lcia(fresh, "database", "roles", "--prefix", "north")
    assert ended.out.rstrip() == shown["sql"].rstrip()
    assert "PASSWORD" not in ended.out
    refused = lcia(fresh, "database", "roles", "--prefix", "x; DROP")
    assert (refused.code, refused.out) == (1, "")
    assert "plain name" in refused.err


def test_migrate_says_from_where_to_where(lcia: "Lcia", fresh, postgresql, monkeypatch):
    name = postgresql.new("template0")
    postgresql.execute("CREATE ROLE nobody_special LOGIN", name)
    monkeypatch.setenv("LCIA__STORAGE__DATABASE", postgresql.url(name, "nobody_special"))
    refused = lcia(fresh, "status")
    assert refused.code == 1
    assert "as the owner of the tables" in refused.err
    monkeypatch.setenv("LCIA__STORAGE__DATABASE", postgresql.url(name))
    _, head = Database(postgresql.url(name)).revisions()
    assert lcia(fresh, "database", "migrate", "--json").json["before"] is None
    told = lcia(fresh, "database", "migrate")
    assert told.code == 0
    assert f"is at schema {head}" in told.out
    postgresql.drop(name)
