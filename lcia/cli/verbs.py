"""The app with all its verbs: each module adds its own when imported, and the help lists them in this order."""

from lcia.cli.app import app

# isort: off
from lcia.cli import versions, doctor, tasks, decisions, wordings, retention, trials  # noqa: F401
from lcia.cli import packages, audit, admin, database, cluster  # noqa: F401

# isort: on

__all__ = ["app"]
