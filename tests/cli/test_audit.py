"""`lcia keys` and what `lcia audit` hands out: each checked again with nothing but the public key."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.audit.keys import read_head, read_public_key
from components.audit.statement import read

if TYPE_CHECKING:
    from small_loop import SmallLoop

    from tests.cli.conftest import Lcia


def test_a_promotion_is_proven_offline(lcia: "Lcia", champion: "SmallLoop", tmp_path: Path) -> None:
    key, kept, proof = tmp_path / "key.pem", tmp_path / "kept.head", tmp_path / "growth.proof"
    shutil.copy(champion.home / "keys" / "audit-key.pub.pem", key)
    assert lcia(champion, "audit", "head", kept).code == 0
    head = read_head(kept.read_bytes(), read_public_key(key))
    shown = lcia(champion, "audit", "prove", 2, "--to", tmp_path / "two.proof", "--json").json
    assert (shown["kind"], shown["entry"]["action"]) == ("inclusion proof", "champion.promoted")
    lcia(champion, "rollback", 1, "--as", "ops", "--reason", "answers became longer")
    told = lcia(champion, "audit", "prove", "--since", kept, "--to", proof)
    assert f"begins with the {head.entries} entries of the earlier head" in told.out
    assert lcia(champion, "audit", "statement", "--to", tmp_path / "statement.json").code == 0
    assert (
        lcia(champion, "audit", "verify", "--head", kept, "--head", next((champion.home / "heads").iterdir())).code == 0
    )

    for file in (tmp_path / "two.proof", proof, tmp_path / "statement.json"):
        good = lcia(champion, "audit", "check-proof", file, "--key", key)
        assert (good.code, good.out[:7]) == (0, "holds: ")
        assert "keys in the file were trusted" in lcia(champion, "audit", "check-proof", file).out
        content = file.read_bytes()
        file.write_bytes(content.replace(b"0", b"1", 1))
        assert lcia(champion, "audit", "check-proof", file, "--key", key).code == 1
    printed = lcia(champion, "audit", "statement", "1").out
    assert read(printed.encode(), read_public_key(key)).predicate["kind"] == "rollback"


def test_keys_are_made_shown_and_handed_over(lcia: "Lcia", fresh: "SmallLoop") -> None:
    assert lcia(fresh, "keys", "show", "--json").json == {"keys": [], "signs": None}
    made = lcia(fresh, "keys", "init", "--as", "ops", "--json").json
    assert made["known"] is False
    assert lcia(fresh, "keys", "init", "--json").json == {**made, "known": True}
    rotated = lcia(fresh, "keys", "rotate", "--as", "ops", "--reason", "a year has passed", "--json").json
    assert (rotated["from"], rotated["not_told"]) == (made["id"], [])
    shown = lcia(fresh, "keys", "show", "--json").json
    assert [key["id"] for key in shown["keys"]] == [made["id"], rotated["id"]]
    assert shown["signs"] == rotated["id"]
    out = lcia(fresh, "keys", "show").out
    assert shown["keys"][-1]["pem"].strip() in out
    entries = lcia(fresh, "audit", "show", "--kind", "key", "--json").json
    assert [(entry["action"], entry["actor"]["name"]) for entry in entries] == [
        ("key.started", "ops"),
        ("key.rotated", "ops"),
    ]


def test_a_head_goes_to_every_place(lcia: "Lcia", fresh: "SmallLoop", tmp_path: Path) -> None:
    places = json.dumps([str(tmp_path / "elsewhere"), "mlflow"])
    fresh.config.write_text(f"{fresh.config.read_text()}\naudit: {{heads_to: {places}}}\n")
    told = lcia(fresh, "audit", "head", "--json").json
    assert [(one["place"], one["ok"]) for one in told["kept"]] == [
        (str(tmp_path / "elsewhere"), True),
        ("mlflow", True),
    ]
    (file,) = (tmp_path / "elsewhere").iterdir()
    assert file.read_text() == told["signed"]
