"""Every package that is installed is named by a lock, with the hashes of all its files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.images import requirements

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-model.lock")
ENTRY = re.compile(r"[a-z0-9][a-z0-9-]*==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n")


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = requirements.entries(text)
    assert "".join(found.values()) == text, "nothing stands between the entries"
    assert [one for one in found.values() if not ENTRY.fullmatch(one)] == []
    assert found.keys() == requirements.locked(text).keys()


def test_the_processor_build_of_torch_has_its_hash():
    """PyPI's list, and the wheel of torch's own index for processors without a GPU."""
    torch = requirements.entries((ROOT / "requirements.lock").read_text())["torch"]
    assert "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b" in torch
    assert torch.count("--hash") > 10


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
    report.write_text(json.dumps({"install": [{"metadata": {"name": "Jinja2"}}, {"metadata": {"name": "click"}}]}))
    script = ROOT / "infra" / "images" / "requirements.py"
    done = subprocess.run(
        [sys.executable, script, "hashed", report], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [one.partition("==")[0] for one in requirements.entries(done.stdout).values()] == ["click", "jinja2"]
    assert done.stdout.count("--hash") >= 4
    pins = subprocess.run([sys.executable, script, "pins"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--hash" not in pins
    assert re.search(r"^triton==", pins, re.MULTILINE)
    report.write_text(json.dumps({"install": [{"metadata": {"name": "typosquat"}}]}))
    done = subprocess.run(
        [sys.executable, script, "hashed", report], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
