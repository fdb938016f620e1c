"""All logic of the project. Never imports zenml, steps, pipelines, infra or lcia."""
