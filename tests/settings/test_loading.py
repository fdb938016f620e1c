"""Settings from files, environment and overrides: places below the state folder."""

from pathlib import Path

from components.settings import load_settings


def test_the_state_folder_is_filled_in_wherever_it_stands(tmp_path: Path) -> None:
    settings = load_settings(environment={"LCIA__GATEWAY__CACHE": "'{home}/copies'"}, home_folder=tmp_path)
    assert settings.gateway.cache == f"{tmp_path}/copies"
    assert "{home}" not in settings.model_dump_json()
    assert load_settings(environment={}, home_folder=tmp_path).gateway.cache == f"{tmp_path}/gateway"
