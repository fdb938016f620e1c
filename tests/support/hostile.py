"""A task whose texts try to be more than text: markup that runs a script, words without an end, other directions."""

import json
from pathlib import Path

import yaml
from small_loop import ROWS, write_package

MARKUP = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{ 7*7 }}'
ENDLESS = "W" * 300
OTHER_WAY = "\u202egpj.exe\u202c مرحبا"
TEXT = f"{MARKUP} {OTHER_WAY} {ENDLESS}"
NAME = "x" * 63
"""The longest name that a task may have."""


def write_hostile(folder: Path) -> Path:
    """Rows of an example that the small loop does not learn, some with hostile text."""
    package = write_package(folder / "hostile", "product_sentiment", first=40, description=TEXT)
    header = yaml.safe_load((package / "task.yaml").read_text(encoding="utf-8"))
    (package / "task.yaml").write_text(yaml.safe_dump({**header, "name": NAME}), encoding="utf-8")
    for split in ROWS:
        file = package / f"{split}.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows[0]["instruction"] += f" {MARKUP}"
        for row in rows[1::3]:
            row["input"] += f" {MARKUP} {OTHER_WAY}"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return package
