"""A verb that computes, in an image that has no torch."""

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_TORCH = Path(__file__).parents[1] / "support" / "without_torch"


def test_what_computes_says_where_it_can_be_run(tmp_path):
    variables = {"LCIA_HOME": str(tmp_path / "home"), "PYTHONPATH": str(WITHOUT_TORCH)}
    done = subprocess.run(
        [sys.executable, "-m", "lcia.cli.main", "ask", "hello"], cwd=tmp_path, env={**os.environ, **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "lcia: torch is not installed here, and this verb computes with the model; run it where the steps run, "
        "in the image `lcia-train`\n"
    )
