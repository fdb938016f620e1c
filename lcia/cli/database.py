"""Verbs for administrators of the database and of MLflow: schema, and an account for each process."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from lcia.cli.app import DO, LOOK, Config, Json, emit, group, here_only, quiet_stdout, read_settings, verb

database = group("database", "Set up the database: its tables and an account for each process.")
registry = group("registry", "Set up the accounts of an MLflow server.")


@verb(
    LOOK,
    "lcia database roles > roles.sql",
    "lcia database roles --prefix north | psql -d lcia",
    on=database,
    name="roles",
)
def roles(
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Beginning of the accounts' names.")] = "lcia",
    schema: Annotated[str, typer.Option(metavar="NAME", help="Schema of the tables.")] = "public",
    as_json: Json = False,
) -> None:
    """Print SQL that makes accounts for worker, service, promoter and keeper, each with exactly its rights."""
    from components.storage import privileges

    script = privileges.script(prefix, schema)
    accounts = [f"{prefix}_{account}" for account in privileges.ACCOUNTS]
    emit({"accounts": accounts, "sql": script}, as_json=as_json, text=script.rstrip())


@verb(DO, "lcia database migrate", on=database, name="migrate")
def migrate(as_json: Json = False, config: Config = None) -> None:
    """Bring the tables up to date with this release. Needs the account that owns them.

    Other verbs do it too, if their account may.
    """
    here_only("database migrate")
    _, _, settings = read_settings(config, None)
    from components.storage.database import Database

    db = Database(settings.storage.database)
    before, _ = db.revisions()
    db.migrate()
    after, _ = db.revisions()
    text = f"{db.url} is at schema {after}" + ("" if before == after else f", it was {before or 'empty'}")
    emit({"database": db.url, "before": before, "after": after}, as_json=as_json, text=text)


@verb(
    DO, "lcia registry accounts", "lcia registry accounts --trainer north-trainer --json", on=registry, name="accounts"
)
def accounts(
    trainer: Annotated[str, typer.Option(metavar="NAME", help="Account that registers candidates.")] = "trainer",
    promoter: Annotated[
        str, typer.Option(metavar="NAME", help="Account that alone moves the promoted model.")
    ] = "promoter",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Create the registered models in MLflow and two accounts, each with exactly its rights.

    Needs an administrator of MLflow. A new account gets the password in LCIA_TRAINER_PASSWORD or
    LCIA_PROMOTER_PASSWORD. If that is not set, it gets a random one, which is shown once.
    """
    here_only("registry accounts")
    _, _, settings = read_settings(config, None)
    from components.registry.accounts import set_up

    section = settings.registry
    passwords = {
        name: os.environ.get(f"LCIA_{right}_PASSWORD", "")
        for name, right in ((trainer, "TRAINER"), (promoter, "PROMOTER"))
    }
    with quiet_stdout(as_json=as_json):
        outcome = set_up(
            section.tracking_uri,
            section.artifacts,
            section.experiment,
            settings.assistant,
            trainer=trainer,
            promoter=promoter,
            passwords={name: text for name, text in passwords.items() if text},
        )
    lines = [f"{one.account}: {one.right} on {one.kind.replace('_', ' ')} {one.name}" for one in outcome.rights]
    lines += [f"password of {name}, shown once: {text}" for name, text in outcome.passwords.items()]
    emit(asdict(outcome), as_json=as_json, text="\n".join(lines))
