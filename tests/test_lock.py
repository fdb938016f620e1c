"""Every package that is installed is named by a lock, with the hashes of all its files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.images import requirements

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-cpu.lock", "requirements-cuda.lock", "requirements-model.lock")
ENTRY = re.compile(r"[a-z0-9][a-z0-9-]*==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n")


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = requirements.entries(text)
    assert "".join(found.values()) == text, "nothing stands between the entries"
    assert [one for one in found.values() if not ENTRY.fullmatch(one)] == []
    assert {one.partition("==")[0] for one in found} == requirements.pins_of(text).keys()


def test_the_build_of_torch_without_gpus_is_of_the_same_version():
    """pip prefers a file whose hash its index tells, so this build has a lock of its own, and is installed first."""
    of = {name: requirements.pins_of((ROOT / name).read_text(encoding="utf-8")).get("torch") for name in LOCKS[:2]}
    assert of["requirements-cpu.lock"] == f"{of['requirements.lock']}+cpu"
    text = (ROOT / "Makefile").read_text()
    assert text.index("--requirement requirements-cpu.lock") < text.index("--requirement requirements.lock")


def test_nothing_is_installed_without_a_hash():
    """`make setup` and the images: whatever else pip installs there is a tool, or this project."""
    texts = [(ROOT / name).read_text().replace("\\\n", " ") for name in ("Makefile", "infra/images/Dockerfile")]
    parts = [part for text in texts for line in text.split("\n") for part in line.split("&&") if line[:1] != "#"]
    installs = [part for part in parts if re.search(r"\bpip( --python \S+)? (install|\$\(LOCKED\))", part)]
    plain = [part for part in installs if not re.search(r"--require-hashes|\$\(LOCKED\)|--dry-run|--editable \.", part)]
    tools = ("cyclonedx-bom==", "checkov==", "build/kubeflow/bin")
    assert [part for part in plain if not any(tool in part for tool in tools)] == []
    assert len(installs) >= 7
    assert "LOCKED := install --disable-pip-version-check --require-hashes --no-deps" in texts[0]


def test_an_image_gets_what_pip_resolved_as_the_lock_has_it(tmp_path):
    report = tmp_path / "report.json"
    report.write_text(
        json.dumps(
            {
                "install": [
                    {"metadata": {"name": "Jinja2", "version": "3.1.6"}},
                    {"metadata": {"name": "torch", "version": "2.13.0+cpu"}},
                ]
            }
        )
    )
    script = ROOT / "infra" / "images" / "requirements.py"
    done = subprocess.run(
        [sys.executable, script, "hashed", report], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [one.partition("==")[0] for one in requirements.entries(done.stdout).values()] == ["jinja2", "torch"]
    assert done.stdout.count("--hash") == 3, "two files of Jinja2, and that build of torch"
    pins = subprocess.run([sys.executable, script, "pins"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--hash" not in pins
    assert re.search(r"^triton==", pins, re.MULTILINE)
    report.write_text(json.dumps({"install": [{"metadata": {"name": "typosquat", "version": "1"}}]}))
    done = subprocess.run(
        [sys.executable, script, "hashed", report], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
