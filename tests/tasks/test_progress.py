"""How far a run is: said, read, forgotten; of one package alone."""

from datetime import UTC, datetime, timedelta

from components.storage.objects import ObjectStore
from components.tasks import progress


def test_the_last_word_counts_until_it_is_forgotten(store: ObjectStore) -> None:
    assert progress.read(store, "a" * 64) is None
    progress.write(store, "a" * 64, "tuning", 1, 10)
    progress.write(store, "a" * 64, "tuning", 4, 10)
    last = progress.read(store, "a" * 64)
    assert last is not None
    assert (last.what, last.done, last.total) == ("tuning", 4, 10)
    assert abs(datetime.fromisoformat(last.at) - datetime.now(UTC)) < timedelta(minutes=1)
    assert progress.read(store, "b" * 64) is None
    progress.clear(store, "b" * 64)
    assert progress.read(store, "a" * 64) == last
    progress.clear(store, "a" * 64)
    assert progress.read(store, "a" * 64) is None
