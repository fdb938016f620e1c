"""The stack `local`: ZenML's own default, every step in this process; nothing to set up but to choose it."""


def up() -> None:
    """Make ZenML's default stack the active one."""
    from zenml.client import Client

    Client().activate_stack("default")
