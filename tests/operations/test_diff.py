"""Two versions side by side: a key that a release removed is a difference only if somebody had set it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from components.grouping.pool import Pool
from components.settings import Settings
from components.storage.objects import ObjectStore
from lcia.operations import diff


@pytest.mark.parametrize(("lengths", "keys"), [([], []), ([0.1], ["tuning.ema_lengths"])])
def test_a_removed_key_at_its_default_is_no_difference(tmp_path, lengths: list[float], keys: list[str]) -> None:
    store, now = ObjectStore(f"file://{tmp_path}/objects"), Settings().content()
    before = {**now, "tuning": {**now["tuning"], "ema_lengths": lengths}}
    pools = [replace(Pool.empty("assistant", "b" * 64), config=store.put_json(content)) for content in (before, now)]
    assert [one["key"] for one in diff._settings(SimpleNamespace(store=store), *pools)] == keys
