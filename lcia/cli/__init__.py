"""Verbs of the command line, one module per kind of work; importing a module adds its verbs to `app.app`."""
