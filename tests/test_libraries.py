from importlib import metadata

import pytest

from components import libraries


@pytest.fixture
def without_torch(monkeypatch):
    def version(name):
        if name in ("torch", "no-such-library"):
            raise metadata.PackageNotFoundError(name)
        return "1.2.3+build"

    monkeypatch.setattr(libraries.metadata, "version", version)


def test_what_is_installed_is_asked_for_without_its_build(without_torch):
    assert libraries.version_of("numpy") == "1.2.3+build"
    assert libraries.requirement("numpy") == "numpy==1.2.3"


def test_what_is_not_installed_is_as_the_lock_pins_it(without_torch):
    assert libraries.version_of("torch") == libraries.pins()["torch"]
    assert libraries.requirement("torch") == f"torch=={libraries.public(libraries.pins()['torch'])}"


def test_of_what_neither_knows_any_version_does(without_torch):
    assert libraries.version_of("no-such-library") is None
    assert libraries.requirement("no-such-library") == "no-such-library"


def test_names_are_compared_as_pip_does():
    assert libraries.plain("Great_Expectations") == "great-expectations"
