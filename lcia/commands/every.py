"""The app with all its verbs: each module adds its own when imported, and the help lists them in this order."""

from lcia.commands.frame import app

# isort: off
from lcia.commands import look, listing, care, learn, decide, keep  # noqa: F401
from lcia.commands import packages, exchange, log, keys, server, database, cluster, settings  # noqa: F401

# isort: on

__all__ = ["app"]
