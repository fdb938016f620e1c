"""Who acts: the owner of the process, whatever the environment says."""

import json
from pathlib import Path

import pytest
from other_user import UID, lcia_as_other, only_as_root

from lcia.instance import actor, user_name


def test_the_environment_does_not_say_who_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = actor(None)
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "bob")
    assert actor(None) == expected
    assert actor(None).name != "bob"
    assert (actor(None).assured, actor("bob").assured) == (True, False)


def test_a_user_without_a_name_is_named_by_number() -> None:
    assert user_name(0) == "root"
    assert user_name(UID) == f"uid {UID}"


@only_as_root
def test_a_user_without_a_passwd_entry_can_work(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    home.chmod(0o777)
    added = lcia_as_other(home, "people", "add", "ada", "--json", LOGNAME="bob")
    assert (added.returncode, added.stderr) == (0, "")
    assert json.loads(added.stdout)["name"] == "ada"
    shown = lcia_as_other(home, "audit", "show", "--json", LOGNAME="bob")
    assert [entry["actor"]["name"] for entry in json.loads(shown.stdout)] == [f"uid {UID}"]
