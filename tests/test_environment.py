"""Processes of our own see none of the secrets that ours holds."""

import time
from pathlib import Path

from components import environment
from components.settings import Settings
from lcia.inference.process import Answerer

SECRETS = (
    *("LCIA_SESSION_SECRET", "LCIA_OIDC_SECRET", "LCIA_WEBHOOK_SECRET", "LCIA_SMTP_PASSWORD", "LCIA_TOKEN"),
    *("LCIA__STORAGE__DATABASE", "LCIA__STORAGE__PROMOTER", "LCIA__STORAGE__KEEPER"),
    *(
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
    ),
    *("PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE", "PGUSER", "ZENML_STORE_PASSWORD", "ZENML_STORE_API_TOKEN"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "SOMETHING_NOBODY_FORESAW"),
)


def test_only_what_a_process_needs_is_handed_on():
    given = {**dict.fromkeys(SECRETS, "loot"), "PATH": "/bin", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "2"}
    assert environment.without_secrets(given) == {"PATH": "/bin", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "2"}
    bucket = {"AWS_SECRET_ACCESS_KEY": "k", "AWS_ROLE_ARN": "r", "https_proxy": "p"}
    plain = environment.without_secrets(given)
    assert environment.without_secrets({**given, **bucket}) == plain
    assert environment.without_secrets({**given, **bucket}, store=True) == {**plain, **bucket}


def test_the_process_that_answers_sees_no_secret(monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, "loot")
    answerer = Answerer(Settings())
    child = answerer._ready()
    try:
        deadline = time.monotonic() + 30
        while not (content := Path(f"/proc/{child.pid}/environ").read_bytes()):  # not yet begun
            assert child.poll() is None
            assert time.monotonic() < deadline
        seen = content.decode().split("\0")
    finally:
        child.kill()
        child.wait()
    assert [one for one in seen if one.endswith("=loot")] == []
    assert any(one.startswith("PATH=") for one in seen)
