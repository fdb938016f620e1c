import json

import pytest

from components.settings import PackageSettings
from components.tasks.isolation import take
from components.tasks.package import read_package
from components.tasks.problems import PackageError, Problem
from components.tasks.quarantine import package_digest, quarantine


def test_a_package_is_stored_whole_and_named_by_its_bytes(make_package, store, tmp_path):
    package = make_package()
    digest = take(package, store, PackageSettings(), tmp_path / "scratch").package
    assert digest == package_digest(package) == store.put_folder(package)
    copy = store.get_folder(digest, tmp_path / "copy")
    assert read_package(copy).splits == read_package(package).splits
    assert package_digest(copy) == digest
    (copy / "test.jsonl").write_text((copy / "test.jsonl").read_text() + "\n")
    assert package_digest(copy) != digest


def test_links_and_limits_are_refused_before_anything_is_stored(make_package, store, tmp_path, monkeypatch):
    package = make_package()
    (package / "LICENSE").symlink_to("/etc/hostname")
    with pytest.raises(PackageError, match="a link"):
        take(package, store, PackageSettings(), tmp_path / "scratch")
    (package / "LICENSE").unlink()
    monkeypatch.setattr("components.tasks.quarantine.MAX_FILE_BYTES", 10)
    with pytest.raises(PackageError, match="more than 10 bytes"):
        package_digest(package)
    assert not (tmp_path / "objects").exists()


def test_quarantine_writes_a_report_and_leaves_the_package_alone(make_package, tmp_path):
    package = make_package(train="not json")
    before = {path.name: path.read_bytes() for path in package.iterdir()}
    with pytest.raises(PackageError) as caught:
        read_package(package)
    folder = quarantine(tmp_path / "home", package, caught.value.problems)
    assert folder == tmp_path / "home" / "quarantine" / package_digest(package)
    report = json.loads((folder / "report.json").read_bytes())
    assert report["problems"][0]["file"] == "train.jsonl"
    assert report["problems"][0]["line"] == 1
    assert "train.jsonl:1" in (folder / "report.txt").read_text()
    assert quarantine(tmp_path / "home", package, caught.value.problems) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["report.json", "report.txt"]
    assert {path.name: path.read_bytes() for path in package.iterdir()} == before


def test_quarantine_takes_a_digest_or_a_path_without_one(tmp_path):
    problem = Problem("x", None, None, "a link", "a folder")
    assert quarantine(tmp_path, "a" * 64, [problem]).name == "a" * 64
    odd = quarantine(tmp_path, "../../\x1b\udc80elsewhere", [problem])
    assert odd.parent == tmp_path / "quarantine"
    assert len(odd.name) == 64
    assert "\x1b" not in (odd / "report.txt").read_text()
