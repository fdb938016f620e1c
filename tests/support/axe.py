"""axe-core, the accessibility checker: fetched by npm at one version, kept in pytest's cache (MPL-2.0, not shipped)."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

PACKAGE = "axe-core@4.14.1"


def source(config: pytest.Config) -> str:
    """The script's text; skips where npm or its registry is not to be had."""
    folder = config.cache.mkdir("axe")
    archive = folder / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm here, which brings axe-core")
        packed = subprocess.run(
            [npm, "pack", PACKAGE, "--pack-destination", str(folder)], check=False, capture_output=True, text=True
        )
        if packed.returncode:
            pytest.skip(f"npm does not bring {PACKAGE}: {packed.stderr.strip()[-200:]}")
    return _member(archive, "package/axe.min.js")


def _member(archive: Path, name: str) -> str:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()
