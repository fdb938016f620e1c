"""A process whose account may not erase withdraws and sweeps with the keeper's, on PostgreSQL."""

import pytest
import yaml
from small_loop import OPS, SITE, TASKS

from components.storage import privileges
from components.storage.database import AccountRefused
from lcia.operations import retention, status, tasks


def test_the_service_withdraws_and_sweeps_with_the_keepers_account(fresh, postgresql, tmp_path):
    name = postgresql.new()
    postgresql.execute(privileges.script(), name)
    settings = yaml.safe_load(fresh.config.read_text())
    urls = {
        key: postgresql.url(name, f"lcia_{who}") for key, who in (("database", "service"), ("promoter", "promoter"))
    }
    storage = {"objects": f"file://{tmp_path}/objects", **urls}

    def opened(**more: str):
        fresh.config.write_text(yaml.safe_dump(settings | {"storage": storage | more}))
        return fresh.open()

    try:
        alone, both = opened(), opened(keeper=postgresql.url(name, "lcia_keeper"))
        item = tasks.submit(alone, fresh.package(TASKS[0]), SITE)
        with pytest.raises(AccountRefused, match="lcia_service"):
            retention.clean(alone, OPS)
        with pytest.raises(AccountRefused, match="lcia_service"):
            retention.withdraw(alone, TASKS[0], OPS, "the site takes it back")
        assert retention.clean(both, OPS)["swept"]
        done = retention.withdraw(both, TASKS[0], OPS, "the site takes it back")
        assert (done["task"], done["name"]) == (item.id, TASKS[0])
        assert status.status(both)["queue"]["items"][0]["state"] == "withdrawn"
    finally:
        postgresql.drop(name)
