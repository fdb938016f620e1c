"""`lcia` as a user without a passwd entry who may read everything and write only what is given to them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UID = 123_456
"""As containers are run with on OpenShift."""

only_as_root = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can be somebody else"
)


def lcia_as_other(home: Path, *argv: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a verb in `home`'s parent, with an environment of its own."""
    kept = "+dac_read_search"  # the interpreter may lie below /root
    who = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", f"--inh-caps={kept}"]
    return subprocess.run(
        [*who, f"--ambient-caps={kept}", Path(sys.executable).with_name("lcia"), *argv],
        cwd=home.parent,
        env={"PATH": os.environ["PATH"], "LCIA_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
