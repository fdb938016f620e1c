"""The wheel: every file that the product reads is in it, and an installation from it finds the demo's packages."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "tasks"
PACKAGES = ("lcia", "pipelines", "steps", "components", "infra")
OF_THE_CHECKOUT = ("infra/images/", "infra/server/", "infra/monitoring/", "infra/stacks/kubeflow-requirements.txt")
"""What images, servers and dashboards are made from; no verb reads it."""
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
INSTALLED = """
import sys
from pathlib import Path
import lcia
from components.settings import load_settings
from components.tasks.package import read_package
from infra import environment
from lcia.cli import demo
from lcia.console.language import FOLDER
from lcia.console.rendering import HERE
from lcia.instance import Instance, actor
from lcia.operations import tasks

site, home = Path(sys.argv[1]), Path(sys.argv[2])
for module in (lcia, demo, environment):
    assert Path(module.__file__).is_relative_to(site), module.__file__
config, folder = environment.found_state(None)
assert (config, folder) == (None, Path.cwd() / ".lcia")
environment.prepare(home)
place = Instance.open(home, load_settings(None, (), home_folder=home))
for name in demo.TASKS:
    package = read_package(demo.EXAMPLES / name)
    item = tasks.submit(place, demo.EXAMPLES / name, actor(demo.SUBMITTER))
    print(item.name, item.state, sorted(map(len, package.splits.values())))
assert (HERE / "templates").is_dir() and list(FOLDER.glob("*/LC_MESSAGES/*.po"))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel, as pip unpacks it; built from a copy, since a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PACKAGES, "examples"):
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=folder / "source", check=True, capture_output=True, text=True
    )
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_every_file_that_is_read_is_in_the_wheel(site: Path) -> None:
    wanted = {
        file.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for file in (ROOT / name).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    wanted |= {f"lcia/examples/{f.relative_to(EXAMPLES).as_posix()}" for f in EXAMPLES.glob("*/*")}
    got = {file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()}
    assert sorted(name for name in wanted - got if not name.startswith(OF_THE_CHECKOUT)) == []
    tops = {name.partition("/")[0] for name in got if ".dist-info" not in name}
    assert tops == set(PACKAGES)


def test_the_demo_of_an_installation_finds_its_packages(site: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LCIA", "PYTEST"))}
    made = subprocess.run(
        [sys.executable, "-P", "-c", INSTALLED, str(site), str(tmp_path / "home")],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    lines = made.stdout.splitlines()
    assert [line.split()[:2] for line in lines[-3:]] == [
        [name, "submitted"] for name in ("movie_sentiment", "product_sentiment", "passive_voice")
    ]
