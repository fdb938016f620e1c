"""The command line: verbs to functions, words or JSON out, exit codes 0 ok, 1 error, 2 gate refused, 3 waiting."""

import sys

from typer.exceptions import TyperException

from components import libraries
from components.errors import LciaError
from lcia.commands.frame import app

# Each adds its verbs when imported, and the help lists them in this order.
# isort: off
from lcia.commands import look, listing, care, learn, decide, keep  # noqa: F401
from lcia.commands import packages, exchange, log, keys, server, database, cluster, settings  # noqa: F401

# isort: on

INTERRUPTED = 130
"""What typer returns after Ctrl-C."""


def main() -> None:
    """Entry point of `lcia`; every error is one message and an exit code."""
    try:
        code = app(prog_name="lcia", standalone_mode=False)
    except LciaError as error:
        print(f"lcia: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in libraries.WITH_TORCH:
            raise
        told = f"{error.name} is not installed here, and this verb computes with the model"
        print(f"lcia: {told}; run it where the steps run, in the image `lcia-train`", file=sys.stderr)
        sys.exit(1)
    except TyperException as error:
        error.show()  # type: ignore[attr-defined] # typer's parser raises only such that show themselves
        _example(error)
        sys.exit(1)
    if code == INTERRUPTED:
        print("\nlcia: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _example(error: TyperException) -> None:
    """A command line that would have been right, where the verb was."""
    epilog = getattr(getattr(getattr(error, "ctx", None), "command", None), "epilog", None) or ""
    lines = [line.strip() for line in epilog.splitlines() if line.startswith("  ")]
    if lines:
        print(f"For example: {lines[0]}", file=sys.stderr)


if __name__ == "__main__":
    main()
