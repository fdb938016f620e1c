"""Removed settings: refused in a file with what to do, read from versions of earlier releases."""

import json
from dataclasses import replace

import pytest

from components.grouping.pool import Pool
from components.serving import bundle
from components.settings import Settings, SettingsError, load_settings, stored_settings
from components.settings.removed import without_defaults_removed
from components.storage.objects import ObjectStore


def old_content(lengths=(), **tuning) -> dict:
    """Content of a version as the release wrote it that still had the key."""
    content = Settings().content()
    return {**content, "tuning": {**content["tuning"], "ema_lengths": list(lengths), **tuning}}


def test_a_settings_file_that_holds_a_removed_key_is_refused_with_what_to_do(tmp_path):
    file = tmp_path / "zenml.yaml"
    file.write_text("tuning: {ema_lengths: [0.1]}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"tuning\.ema_lengths: was removed: .*; delete this key"):
        load_settings(file, environment={})
    with pytest.raises(SettingsError, match=r"tuning\.ema_lengths: was removed"):
        load_settings(None, ["tuning.ema_lengths=[]"], {})
    with pytest.raises(SettingsError, match=r"grouping\.at_cap: `merge` was removed: .*; write hold or nearest"):
        load_settings(None, [], {"LCIA__GROUPING__AT_CAP": "merge"})
    with pytest.raises(SettingsError, match=r"at_cap: Input should be 'nearest' or 'hold' \(seen: 'join'\)"):
        load_settings(None, ["grouping.at_cap=join"], {})


@pytest.mark.parametrize("lengths", [(), (0.05, 0.2)])
def test_a_version_of_an_earlier_release_keeps_its_other_settings(lengths):
    content = json.loads(json.dumps(old_content(lengths, steps=7)))
    settings = stored_settings(content)
    assert settings.tuning.steps == 7
    assert settings.content() == {**Settings().content(), "tuning": {**Settings().content()["tuning"], "steps": 7}}
    with pytest.raises(ValueError, match="stepz"):
        stored_settings(old_content(stepz=1))


@pytest.mark.parametrize(("stored", "read"), [("merge", "hold"), ("nearest", "nearest")])
def test_a_version_that_merged_groups_is_read_as_one_that_holds(stored, read):
    content = Settings().content()
    content["grouping"]["at_cap"] = stored
    assert stored_settings(content).grouping.at_cap == read
    assert without_defaults_removed(content)["grouping"]["at_cap"] == stored


def test_a_removed_key_that_nobody_had_set_is_no_difference():
    assert without_defaults_removed(old_content()) == Settings().content()
    assert without_defaults_removed(old_content([0.1]))["tuning"]["ema_lengths"] == [0.1]


@pytest.mark.parametrize("lengths", [(), (0.05, 0.2)])
def test_a_version_of_an_earlier_release_is_loaded_and_exported(lengths, tmp_path):
    store = ObjectStore(f"file://{tmp_path}/objects")
    config = store.put_json(old_content(lengths, steps=7))
    version = store.put_json(replace(Pool.empty("assistant", "b" * 64), config=config).to_manifest())
    assert bundle.from_store(store, version).settings.tuning.steps == 7
    bundle.write(store, version, tmp_path / "out")
    assert bundle.read(tmp_path / "out", version).settings.tuning.steps == 7
