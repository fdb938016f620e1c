"""Verbs of the administrators of the database and of MLflow: schema, and an account for each process."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from components.storage import privileges
from components.storage.database import Database
from lcia.cli.app import DO, LOOK, Config, Json, app, emit, here_only, quiet_stdout, read_settings, verb

database = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The database: its schema and accounts.")
registry = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The MLflow server: its accounts.")
app.add_typer(database, name="database", rich_help_panel=DO)
app.add_typer(registry, name="registry", rich_help_panel=DO)


@verb(
    LOOK,
    "lcia database roles > roles.sql",
    "lcia database roles --prefix north | psql -d lcia",
    on=database,
    name="roles",
)
def roles(
    prefix: Annotated[str, typer.Option(help="Beginning of the accounts' names.")] = "lcia",
    schema: Annotated[str, typer.Option(help="Schema of the tables.")] = "public",
    as_json: Json = False,
) -> None:
    """SQL that makes an account for worker, service, promoter and keeper, each with exactly its rights."""
    script = privileges.script(prefix, schema)
    accounts = [f"{prefix}_{account}" for account in privileges.ACCOUNTS]
    emit({"accounts": accounts, "sql": script}, as_json=as_json, text=script.rstrip())


@verb(DO, "lcia database migrate", on=database, name="migrate")
def migrate(as_json: Json = False, config: Config = None) -> None:
    """Bring the tables to this version's shape, as their owner; other verbs do it too where they may."""
    here_only("database migrate")
    _, _, settings = read_settings(config, None)
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
    trainer: Annotated[str, typer.Option(help="Account that shows candidates.")] = "trainer",
    promoter: Annotated[str, typer.Option(help="Account that alone writes the promoted model.")] = "promoter",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make MLflow's models and two accounts, each with exactly its rights; as an administrator of MLflow.

    A new account gets the password of LCIA_TRAINER_PASSWORD or LCIA_PROMOTER_PASSWORD where that is set, else a random
    one, which is shown once.
    """
    here_only("registry accounts")
    _, _, settings = read_settings(config, None)
    from components.registry.accounts import set_up

    told = settings.registry
    given = {
        name: os.environ.get(f"LCIA_{right}_PASSWORD", "")
        for name, right in ((trainer, "TRAINER"), (promoter, "PROMOTER"))
    }
    with quiet_stdout(as_json=as_json):
        found = set_up(
            told.tracking_uri,
            told.artifacts,
            told.experiment,
            settings.assistant,
            trainer=trainer,
            promoter=promoter,
            passwords={name: text for name, text in given.items() if text},
        )
    lines = [f"{one.account}: {one.right} on {one.kind.replace('_', ' ')} {one.name}" for one in found.rights]
    lines += [f"password of {name}, shown once: {text}" for name, text in found.passwords.items()]
    emit(asdict(found), as_json=as_json, text="\n".join(lines))
