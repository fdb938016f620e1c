"""All logic. Never imports zenml, steps, pipelines, infra or lcia."""
