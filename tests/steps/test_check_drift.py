"""Rows that the champion tries at assessment."""

from components.settings import Settings
from steps.check_drift import rows_to_try


def test_the_champion_tries_rows_from_the_whole_split(take_example) -> None:
    snapshot, settings = take_example("movie_sentiment", validation=40), Settings()
    rows = [row.id for row in snapshot.rows("validation")]
    known = settings.quality.known.model_copy(update={"rows": 10})
    few = settings.model_copy(update={"quality": settings.quality.model_copy(update={"known": known})})
    drawn = [row.id for row in rows_to_try(snapshot, set(), few)]
    assert len(drawn) == 10
    assert drawn != rows[:10]
    assert drawn == [row.id for row in rows_to_try(snapshot, set(), few)]
    rest = [row.id for row in rows_to_try(snapshot, set(drawn), few)]
    assert len(rest) == 10
    assert not set(rest) & set(drawn)
    none = settings.quality.model_copy(update={"known": known.model_copy(update={"rows": 0})})
    assert rows_to_try(snapshot, set(), settings.model_copy(update={"quality": none})) == []
