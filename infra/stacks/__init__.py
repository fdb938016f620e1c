"""ZenML's stacks: where the steps of a run are executed."""
