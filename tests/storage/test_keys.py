"""Keys of finished work: equal for equal work, other for anything that could change its result."""

from pathlib import Path

import pytest

from components.storage import keys


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`key(text, ...)`: the key of a step whose source is `text`."""
    (tmp_path / "room").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(keys, "COMPONENTS", tmp_path)

    def key(text: str = "a = 1", step: str = "tune", inputs: object = "x", config: object = 1, folder: str = "room"):
        (tmp_path / "room" / "module.py").write_text(text)
        keys._sources.cache_clear()
        return keys.step_key(step, {"task": inputs}, {"steps": config}, [folder])

    yield key
    keys._sources.cache_clear()


def test_equal_work_has_equal_keys(key) -> None:
    assert key() == key()


@pytest.mark.parametrize(
    "change", [{"text": "a = 2"}, {"step": "gate"}, {"inputs": "y"}, {"config": 2}, {"folder": "other"}]
)
def test_what_could_change_the_result_changes_the_key(key, change) -> None:
    assert key(**change) != key()


def test_another_release_of_a_library_changes_the_key(key, monkeypatch) -> None:
    before = key()
    monkeypatch.setattr(keys, "_libraries", lambda: {"torch": "0"})
    assert key() != before


def test_the_order_of_what_is_named_is_no_matter(key) -> None:
    key()
    folders = [keys.step_key("tune", {"a": 1, "b": 2}, {}, order) for order in (["room", "other"], ["other", "room"])]
    assert len({*folders, keys.step_key("tune", {"b": 2, "a": 1}, {}, ["room", "other"])}) == 1
