"""Profiles: defaults below the file, the environment and --set, on record by the values that they lead to."""

from pathlib import Path

import pytest

from components.settings import Settings, SettingsError, TuningSettings, changed_keys, load_settings, stored_settings
from components.settings.profiles import PROFILES
from components.settings.reference import keys

SHIPPED = Path(__file__).parents[2] / "zenml.yaml"


def test_what_is_set_anywhere_wins_over_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "zenml.yaml"
    file.write_text("profile: quick\ntuning: {batch_size: 5}\n", encoding="utf-8")
    settings = load_settings(file, ["tuning.epochs=9"], {"LCIA__TUNING__MAX_ROWS": "7"})
    assert (settings.tuning.batch_size, settings.tuning.epochs, settings.tuning.max_rows) == (5, 9, 7)
    assert settings.adapter.top_layers == 6
    assert settings.tuning.learning_rate == TuningSettings().learning_rate


def test_sections_within_sections_are_filled_in() -> None:
    settings = load_settings(None, ["profile=paper", "tuning.ema.beta=0.5", "tuning.rehearsal.rows_per_task=1"], {})
    assert (settings.tuning.ema.rule, settings.tuning.ema.beta) == ("released", 0.5)
    assert (settings.tuning.rehearsal.share, settings.tuning.rehearsal.rows_per_task) == (0, 1)
    assert (settings.adapter.rank, settings.adapter.alpha, settings.adapter.top_layers) == (128, 256, "all")


def test_an_unknown_profile_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(SettingsError, match=r"profile: Input should be 'quick', 'default' or 'paper' \(seen: 'fast'\)"):
        load_settings(None, ["profile=fast"], {})


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_on_record_by_its_values_and_the_shipped_file_leaves_them_to_it(profile) -> None:
    settings = load_settings(None, [f"profile={profile}"], {})
    assert load_settings(SHIPPED, [f"profile={profile}"], {}).content() == settings.content()
    content = settings.content()
    assert "profile" not in content
    assert stored_settings(content).content() == content
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    assert bool(changed_keys(settings)) == (profile != "default")


def test_keys_that_differ_from_the_default_profile_are_named() -> None:
    quick, own = (set(changed_keys(load_settings(None, keys, {}))) for keys in (["profile=quick"], ["tuning.epochs=2"]))
    tuning = {f"tuning.{key}" for key in ("batch_size", "epochs", "max_rows", "pseudo_rehearsal.tasks")}
    assert quick == {"adapter.top_layers", *tuning}
    assert own == {"tuning.epochs"}  # also of a key that versions of earlier releases lack


def test_the_reference_shows_what_each_profile_sets() -> None:
    (key,) = keys("profile")
    assert key.default == "default"
    assert "`quick`: adapter.top_layers 6" in key.meaning
    assert "tuning.ema.rule released" in key.meaning
