"""Entry point of the command line; exit codes are 0 ok, 1 error, 2 gate refused, 3 waiting for people."""

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from components.errors import LciaError
from components.visible import indent
from lcia.cli import terminal

if TYPE_CHECKING:
    from typer.exceptions import TyperException

INTERRUPTED = 130
"""Exit code of typer after Ctrl-C."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of the module
    """`app`, with every verb; imported late, so that `main` can also report a failed import."""
    if name != "app":
        raise AttributeError(name)
    from lcia.cli.verbs import app

    return app


def main() -> None:
    """Entry point of `lcia`; every error is one message and an exit code."""
    threading.excepthook = _report_thread
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - closed by the caller
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    with terminal.guard():
        code = _run()
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            code = _pipe_closed()
        except OSError as error:
            code = _report(error)
            _drop_output()
    sys.exit(code)


def _run() -> int:
    try:
        from typer.exceptions import TyperException

        from lcia.cli.verbs import app

        try:
            code = app(prog_name="lcia", standalone_mode=False)
        except TyperException as error:
            error.show()  # type: ignore[attr-defined] # all errors of typer's parser have show()
            _example(error)
            return 1
    except BrokenPipeError:
        return _pipe_closed()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - people read a message, never a traceback
        return _report(error)
    if code == INTERRUPTED:
        print("\nlcia: interrupted; run the same command again to go on", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    """Print what is wrong and what to do; return the exit code."""
    from lcia import failures
    from lcia.cli.app import SESSION

    if isinstance(error, LciaError) and not failures.is_full(error):
        message = "\n".join([str(error), *getattr(error, "__notes__", ())])
    else:
        message = failures.report(error, SESSION.home, SESSION)
    print(f"lcia: {indent(message)}", file=sys.stderr)
    return error.exit_code if isinstance(error, LciaError) else 1


def _report_thread(thread: threading.ExceptHookArgs) -> None:
    """Print the failure of a side thread like any other; the work goes on."""
    if isinstance(thread.exc_value, Exception):
        _report(thread.exc_value)


def _pipe_closed() -> int:
    """Exit code after the reader of our output has ended (`lcia ... | head`); nobody is left to read a message."""
    _drop_output()
    return 1


def _drop_output() -> None:
    """Discard what is still buffered; otherwise Python complains about it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _example(error: "TyperException") -> None:
    """Print a correct command line for the verb, if the verb itself was right."""
    epilog = getattr(getattr(getattr(error, "ctx", None), "command", None), "epilog", None) or ""
    lines = [line.strip() for line in epilog.splitlines() if line.startswith("  ")]
    if lines:
        print(f"For example: {lines[0]}", file=sys.stderr)


if __name__ == "__main__":
    main()
