"""Keys that sign the log: make the first, hand over to a new one, show them all."""

import typer

from lcia.commands.frame import DO, LOOK, As, Config, Json, Reason, app, emit, here_only, open_place, perform, verb

keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The keys that sign the log.")
app.add_typer(keys, name="keys", rich_help_panel=DO)


@verb(LOOK, "lcia keys show", "lcia keys show --json", on=keys, name="show")
def keys_show(as_json: Json = False, config: Config = None) -> None:
    """Every key that signed the log, and since when; people compare the id with what they were told."""
    value = perform("keys", config=config)
    lines = [f"{one['number']}  {one['id']}  since {one['since']}, entry {one['entry']}" for one in value["keys"]]
    pem = value["keys"][-1]["pem"].rstrip() if value["keys"] else "no key yet; `lcia keys init` makes it"
    emit(value, as_json=as_json, text="\n".join([*lines, pem]))


@verb(DO, "lcia keys init", on=keys, name="init")
def keys_init(name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Make the key that signs the log and enter it; where there is one it stays."""
    from lcia import auditing
    from lcia.workplace import actor

    here_only("keys init")
    value = auditing.init_keys(open_place(config), actor(name))
    what = "signs already" if value["known"] else "signs from now on"
    text = f"key {value['id']} {what}; back up {value['folder']}, and give the public key to whoever checks"
    emit(value, as_json=as_json, text=text)


@verb(DO, 'lcia keys rotate --reason "a year has passed"', on=keys, name="rotate")
def keys_rotate(reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Hand over to a new key, signed in by the present one, whose private part is deleted."""
    from lcia import auditing
    from lcia.workplace import actor

    here_only("keys rotate")
    value = auditing.rotate_key(open_place(config), actor(name), reason)
    lines = [f"key {value['id']} signs from now on, signed in by {value['from']}; back up {value['folder']}"]
    emit(value, as_json=as_json, text="\n".join([*lines, *(f"not told: {one}" for one in value["not_told"])]))
    if value["not_told"]:
        raise typer.Exit(1)
