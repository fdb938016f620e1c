"""Verbs of the log: verify and export it, prove an entry, hand out signed heads and statements; and its keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from lcia.cli.app import (
    DO,
    LOOK,
    As,
    Config,
    Json,
    Maybe,
    Reason,
    audit_verbs,
    emit,
    group,
    here_only,
    on_server,
    open_instance,
    perform,
    verb,
)
from lcia.cli.terminal import print_document

NOT_COMPARED = "not compared"
Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Public key (PEM) that signed, or one that handed over to it."),
]
Out = Annotated[Path | None, typer.Option("--to", metavar="FILE", help="File to write; default standard output.")]


@verb(
    LOOK,
    "lcia audit verify",
    "lcia audit verify log.jsonl --key audit-key.pub.pem --head kept.head",
    on=audit_verbs,
    name="verify",
)
def audit_verify(
    export: Annotated[Path | None, typer.Argument(metavar="FILE", help="Exported log; default the live one.")] = None,
    key: Key = None,
    head: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A signed head kept elsewhere, which shows if the log was cut; repeatable."),
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Verify every byte of the log, and that it explains the state. Exits 1 if it does not.

    An exported file is verified offline; the state is then not compared.
    """
    from lcia.operations import audit

    if export is None and on_server() and key is None and not head:
        value = perform("verify")
    else:
        if export is None:
            here_only("audit verify --key/--head")
        instance = open_instance(config) if export is None else None
        value = audit.verify(instance, export, key, head or ()).to_json()
    emit(value, as_json=as_json, text=_verification)
    if not value["ok"]:
        raise typer.Exit(1)


def _verification(value: dict[str, Any]) -> str:
    state = [value["state"]] if value["ok"] and value["state"] != NOT_COMPARED else []
    return "; ".join([value["message"], value["freshness"], *state])


@verb(LOOK, "lcia audit export log.jsonl", on=audit_verbs, name="export")
def audit_export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File to write; FILE.head beside it is the signed head.")
    ],
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write the log as JSON Lines, with a signed head beside it."""
    if on_server():
        from lcia import client

        value = client.export(file)
    else:
        from lcia.operations import audit

        value = audit.export(open_instance(config), file)
    text = f"{value['entries']} entries in {value['file']}, signed head in {value['head_file']}"
    emit(value, as_json=as_json, text=text)


@verb(LOOK, "lcia audit head", "lcia audit head kept.head", on=audit_verbs, name="head")
def audit_head(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="File to write.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Sign the log's head. Without FILE, send it to the places that `audit.heads_to` names."""
    from lcia.operations import audit

    value = perform("head", config=config)
    text = f"head of {value['entries']} entries, root {value['head'][:16]}, signed by key {value['key'][:16]}"
    if file is not None:
        file.write_text(value["signed"], encoding="utf-8")
        text += f", in {file}"
    elif not on_server():
        value["kept"] = audit.keep_head(open_instance(config))
        text = "\n".join([text, *(f"  {one['place']}: {one['message']}" for one in value["kept"])])
    emit(value, as_json=as_json, text=text)
    if not all(one["ok"] for one in value.get("kept", ())):
        raise typer.Exit(1)


@verb(DO, 'lcia audit set-aside --reason "a row that is no entry"', on=audit_verbs, name="set-aside")
def audit_set_aside(reason: Reason, who: As = None, as_json: Json = False, config: Config = None) -> None:
    """Move the rows after the last intact entry of a damaged log out of it; prefer restoring a backup.

    Needs the database account that owns the tables.
    """
    from lcia.instance import actor
    from lcia.operations import audit

    here_only("audit set-aside")
    value = audit.set_aside(open_instance(config), actor(who), reason)
    text = (
        f"{value['rows']} rows after {value['kept']} whole entries are in the table log_set_aside; entry "
        f"{value['entry']} of the log says so"
    )
    emit(value, as_json=as_json, text=text)


@verb(DO, 'lcia audit disown 41 --reason "nobody decided this"', on=audit_verbs, name="disown")
def audit_disown(
    entry: Annotated[
        int, typer.Argument(metavar="INDEX", help="Number of an entry about the champion, counted from 0.")
    ],
    reason: Reason,
    who: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Declare that an entry about the champion was forged. It stays in the log but no longer counts.

    Needs the database account that owns the tables.
    """
    from lcia.instance import actor
    from lcia.operations import audit

    here_only("audit disown")
    value = audit.disown(open_instance(config), entry, actor(who), reason)
    emit(value, as_json=as_json, text=f"entry {value['disowned']} no longer counts; entry {value['entry']} says so")


@verb(
    LOOK,
    "lcia audit prove 3 --to promotion.proof",
    "lcia audit prove --since kept.head --to growth.proof",
    on=audit_verbs,
    name="prove",
)
def audit_prove(
    version: Annotated[str | None, typer.Argument(metavar="N", help="A version that was champion.")] = None,
    entry: Annotated[int | None, typer.Option(metavar="INDEX", help="Any entry instead, counted from 0.")] = None,
    since: Annotated[
        Path | None, typer.Option(metavar="HEAD", help="File with an earlier head: prove that the log only grew.")
    ] = None,
    file: Out = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write a proof that a promotion is in the log, or that the log only grew. The public key checks it."""
    from lcia.operations import audit

    earlier = audit.text_of(since) if since is not None else None
    value = perform("prove", config=config, version=version, entry=entry, since=earlier)
    _hand_out(value, "proof", file, as_json=as_json, text=audit.proof_words)


@verb(LOOK, "lcia audit statement 3", "lcia audit statement --to statement.json", on=audit_verbs, name="statement")
def audit_statement(version: Maybe = None, file: Out = None, as_json: Json = False, config: Config = None) -> None:
    """Write the signed in-toto statement (DSSE) of a version's promotion."""
    from lcia.operations import audit

    value = perform("statement", config=config, version=version)
    _hand_out(value, "statement", file, as_json=as_json, text=audit.statement_words)


@verb(LOOK, "lcia audit check-proof promotion.proof --key audit-key.pub.pem", on=audit_verbs, name="check-proof")
def audit_check_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof or statement.")],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Check a proof or statement offline, with only the public key."""
    from lcia.operations import audit

    value = audit.check_file(file, key)
    words = audit.statement_words if value["kind"] == "statement" else audit.proof_words
    trust = "" if key else "\nno --key was given: the keys in the file were trusted as they are"
    emit(value, as_json=as_json, text=lambda fields: f"holds: {words(fields)}{trust}")


def _hand_out(
    value: dict[str, Any], name: str, file: Path | None, *, as_json: bool, text: Callable[[dict[str, Any]], str]
) -> None:
    """Write the signed bytes to a file and print what they are, or print the bytes."""
    if file is not None:
        file.write_text(value[name], encoding="utf-8")
    if file is None and not as_json:
        print_document(value[name].rstrip("\n"))
    else:
        emit(value, as_json=as_json, text=lambda fields: f"{text(fields)}; in {file}")


keys = group("keys", "Show, make and rotate the keys that sign the log.")


@verb(LOOK, "lcia keys show", "lcia keys show --json", on=keys, name="show")
def keys_show(as_json: Json = False, config: Config = None) -> None:
    """List the keys that signed the log, and since when. Compare their ids with ids you got elsewhere."""
    value = perform("keys", config=config)
    lines = [f"{one['number']}  {one['id']}  since {one['since']}, entry {one['entry']}" for one in value["keys"]]
    pem = value["keys"][-1]["pem"].rstrip() if value["keys"] else "no key yet; `lcia keys init` makes it"
    emit(value, as_json=as_json, text="\n".join([*lines, pem]))


@verb(DO, "lcia keys init", on=keys, name="init")
def keys_init(name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Make the key that signs the log, and enter it in the log. An existing key stays."""
    from lcia.instance import actor
    from lcia.operations import audit

    here_only("keys init")
    value = audit.init_keys(open_instance(config), actor(name))
    what = "signs already" if value["known"] else "signs from now on"
    text = f"key {value['id']} {what}; back up {value['folder']}, and give the public key to those who verify"
    emit(value, as_json=as_json, text=text)


@verb(DO, 'lcia keys rotate --reason "a year has passed"', on=keys, name="rotate")
def keys_rotate(reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Replace the key: the old key signs the new one, then the old private key is deleted."""
    from lcia.instance import actor
    from lcia.operations import audit

    here_only("keys rotate")
    value = audit.rotate_key(open_instance(config), actor(name), reason)
    lines = [f"key {value['id']} signs from now on, signed by {value['from']}; back up {value['folder']}"]
    emit(value, as_json=as_json, text="\n".join([*lines, *(f"not told: {one}" for one in value["not_told"])]))
    if value["not_told"]:
        raise typer.Exit(1)
