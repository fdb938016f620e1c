"""The one base error. A subclass per cause lives beside the code that raises it."""


class LciaError(Exception):
    """Something the user can understand and mend.

    The message says what was seen, what was expected and which command or edit mends it.
    `exit_code` is what the command line returns: 1 error, 2 gate refused, 3 waiting for people.
    """

    exit_code = 1


class GateRefused(LciaError):
    """The evidence does not allow what was asked; people or better data have to change it."""

    exit_code = 2


class WaitingForPeople(LciaError):
    """Nothing is wrong, but a person has to act before this can go on."""

    exit_code = 3
