"""ZenML's stacks, on which the steps of a run are executed."""
