"""MLflow's model in a fresh process: the champion's statement is checked with a key that it brought along."""

import json
import os
import subprocess
import sys
from pathlib import Path

from small_loop import OPS, Learnt, SmallLoop

from components.audit import keys
from lcia.operations import audit

FRESH_PROCESS = """
import json, sys
import mlflow
told = []
for uri, name, config in json.loads(sys.argv[1]):
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.pyfunc.load_model(name, model_config=config)
        told.append("loaded")
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
print(json.dumps(told))
"""


def test_only_what_was_promoted_is_loaded(
    learnt: Learnt, champion: SmallLoop, tiny_folder: Path, tmp_path: Path
) -> None:
    instance = champion.open()
    old, thief = tmp_path / "old.pem", keys.signing_key(tmp_path / "thief")
    old.write_bytes(Path(instance.settings.audit.public_key).read_bytes())
    audit.rotate_key(instance, OPS, "a year has passed")
    uri, waits = (one.settings.registry.tracking_uri for one in (instance, learnt.pending.open()))
    base = {"base_model": str(tiny_folder)}
    attempts = [
        (uri, "models:/assistant@champion", {**base, "public_key": instance.settings.audit.public_key}),
        (uri, "models:/assistant@champion", {**base, "public_key": str(old)}),
        (uri, "models:/assistant@champion", base),
        (uri, "models:/assistant@champion", {**base, "public_key": str(tmp_path / "thief" / keys.PUBLIC_NAME)}),
        (waits, "models:/assistant-candidates/1", base),
        (waits, "models:/assistant-candidates/1", {**base, "candidate": True}),
    ]
    assert thief.id
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "OMP_NUM_THREADS")}
    made = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, json.dumps(attempts)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout.splitlines()[-1])
    assert told[:3] == ["loaded"] * 3, told
    assert "StatementRefused" in told[3]
    assert "none of the keys" in told[3]
    assert "StatementRefused" in told[4]
    assert "has no signed statement of a promotion" in told[4]
    assert told[5] == "loaded"
