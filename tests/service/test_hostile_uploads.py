"""Uploads that are made to take the service over, or to use it up: it never opens them itself."""

import io
import os
import zipfile
from pathlib import Path

import pytest
from hostile_files import package, repeating_parquet, with_flat_images, zip_of_folders

from components.tasks import containers, images, parquet, parser_process
from components.tasks import package as package_module


def upload(server, name: str, content: bytes):
    """Send a package as somebody."""
    headers = {"authorization": f"Bearer {server.tokens[name]}", "content-type": "application/zip"}
    return server.client.post("/v1/submit", content=content, headers=headers)


def zipped(folder: Path) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return made.getvalue()


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader can run in this process, which holds the service."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the service opened it itself")

    for module, name in (
        (containers, "_unpack"), (package_module, "read_package"), (package_module, "_read"),
        (images, "plain_pixels"), (parquet, "rows"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, never)


@pytest.mark.usefixtures("blind")
def test_an_honest_upload_is_taken_by_another_process(serve, fresh, tmp_path):
    server = serve(fresh)
    got = upload(server, "submitter", zipped(with_flat_images(tmp_path / "p", 3, side=64)))
    assert (got.status_code, got.json()["state"]) == (200, "submitted")
    kept = sum(file.size for file in server.instance.store.objects())
    assert kept < 3 * 3 * 64 * 64  # all of it takes less than the bare pixels


@pytest.mark.usefixtures("blind")
def test_uploads_that_use_the_machine_up_are_refused_in_words(serve, fresh, tmp_path):
    server = serve(fresh, "packages.memory_mb=512", "packages.megapixels=2", "packages.seconds=30")
    nested = package(tmp_path / "parquet")
    (nested / "train.jsonl").unlink()
    (nested / "train.parquet").write_bytes(repeating_parquet("messages"))
    for content, words in (
        (zipped(with_flat_images(tmp_path / "flat", 3, side=1000)), "at most packages.megapixels"),
        (zipped(nested), "train.parquet: seen more than"),
        (zip_of_folders(100_001), "more than 100000 files and folders"),
    ):
        got = upload(server, "submitter", content)
        assert got.status_code == 422, got.text
        assert words in got.json()["message"]
    assert not list(server.instance.store.objects())
    assert not list((server.instance.home / "unpacked").iterdir())


def test_an_upload_that_takes_the_reader_over_reaches_nothing_of_the_service(serve, fresh, tmp_path, monkeypatch):
    """Code in place of the reader looks for keys, the database and the environment of the service."""
    server = serve(fresh)
    monkeypatch.setenv("LCIA_SESSION_SECRET", "s" * 40)
    home = server.instance.home
    file = tmp_path / "attack.py"
    file.write_text(
        f"""
def attack(request, out):
    import glob, os
    loot = [name for name in os.environ if "LCIA" in name]
    for path in ["{home}/lcia.db", *glob.glob("{home}/keys/*"), "/proc/{os.getpid()}/environ"]:
        try:
            open(path, "rb").read(1)
            loot.append(path)
        except OSError:
            pass
    raise ValueError(f"loot {{loot}}")
""",
        encoding="utf-8",
    )
    from hostile_files import PROGRAM

    monkeypatch.setattr(parser_process, "PROGRAM", (PROGRAM.format(file=str(file)), parser_process.PROGRAM[1]))
    got = upload(server, "submitter", zipped(package(tmp_path / "p")))
    assert got.status_code == 422
    assert "loot []" in got.json()["message"]
