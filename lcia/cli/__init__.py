"""The verbs, one module per kind of work; importing a module adds its verbs to `frame.app`."""
