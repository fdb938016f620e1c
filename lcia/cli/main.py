"""The command line: verbs to functions, words or JSON out, exit codes 0 ok, 1 error, 2 gate refused, 3 waiting."""

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
"""What typer returns after Ctrl-C."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of the module
    """`app`, with every verb; imported late, so that `main` also answers for what can't be imported."""
    if name != "app":
        raise AttributeError(name)
    from lcia.cli.every import app

    return app


def main() -> None:
    """Entry point of `lcia`; every error is one message and an exit code."""
    threading.excepthook = _thread_failed
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - closed by the caller
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    with terminal.guarded():
        code = _run()
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            code = _pipe_closed()
        except OSError as error:
            code = _failed(error)
            _drop_output()
    sys.exit(code)


def _run() -> int:
    try:
        from typer.exceptions import TyperException

        from lcia.cli.every import app

        try:
            code = app(prog_name="lcia", standalone_mode=False)
        except TyperException as error:
            error.show()  # type: ignore[attr-defined] # typer's parser raises only such that show themselves
            _example(error)
            return 1
    except BrokenPipeError:
        return _pipe_closed()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, people read a message
        return _failed(error)
    if code == INTERRUPTED:
        print("\nlcia: interrupted; run the same command again to go on", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def _failed(error: Exception) -> int:
    """Print what is wrong and what to do; returns the exit code."""
    from lcia import failures
    from lcia.cli import app as frame

    if isinstance(error, LciaError) and not failures.is_full(error):
        message = "\n".join([str(error), *getattr(error, "__notes__", ())])
    else:
        message = failures.report(error, frame.SESSION.home, frame.SESSION)
    print(f"lcia: {indent(message)}", file=sys.stderr)
    return error.exit_code if isinstance(error, LciaError) else 1


def _thread_failed(ended: threading.ExceptHookArgs) -> None:
    """A thread beside the work failed: its message is read like any other, and the work goes on."""
    if isinstance(ended.exc_value, Exception):
        _failed(ended.exc_value)


def _pipe_closed() -> int:
    """The program that read our output has ended (`lcia ... | head`): nobody is left to tell anything."""
    _drop_output()
    return 1


def _drop_output() -> None:
    """Let what is still buffered go nowhere, else Python complains about it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _example(error: "TyperException") -> None:
    """A command line that would have been right, where the verb was."""
    epilog = getattr(getattr(getattr(error, "ctx", None), "command", None), "epilog", None) or ""
    lines = [line.strip() for line in epilog.splitlines() if line.startswith("  ")]
    if lines:
        print(f"For example: {lines[0]}", file=sys.stderr)


if __name__ == "__main__":
    main()
