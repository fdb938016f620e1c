"""The one base error. Each cause has a subclass beside the code that raises it."""


class LciaError(Exception):
    """An error that the user can understand and mend.

    The message says what was seen, what was expected and which command or edit mends it. `exit_code` is the exit status
    of the command line: 1 error, 2 gate refused, 3 waiting for people.
    """

    exit_code = 1


class GateRefused(LciaError):
    """The evidence does not allow the action; people or better data have to change that."""

    exit_code = 2


class WaitingForPeople(LciaError):
    """Nothing is wrong, but a person has to act first."""

    exit_code = 3
