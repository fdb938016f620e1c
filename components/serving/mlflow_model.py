"""The model that MLflow loads, stored as this source text (models from code): nothing is unpickled.

    model = mlflow.pyfunc.load_model("models:/assistant@champion")
    model.predict(pandas.DataFrame({"instruction": ["What does the customer want?"], "input": ["I lost my card."]}))

gives a frame with the columns `answer`, `group`, `similarity` and `nearest_task`. A column `image` holds lists of
files, as bytes of PNG, JPEG or WebP; paths and addresses are not read. Which base model is named by the version's
settings; `load_model(..., model_config={"base_model": FOLDER, "models": FOLDER})` names its folder on
this machine, and the folder of converted ones (default ~/.cache/lcia/models).

Only a version with a signed statement of its promotion is loaded. `public_key`, a PEM file, says which key must have
signed it, or handed over to the one that did; without it the keys beside the statement are taken at their word, which
shows that a promotion took place and not by whom. `candidate=True` loads what was never promoted, to try it out.
"""

import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


def _cache() -> Path:
    """Folder of converted base models; one of this process alone for a user without a home."""
    try:
        return Path.home() / ".cache" / "lcia" / "models"
    except RuntimeError:
        return Path(tempfile.mkdtemp(prefix="lcia-models-"))


class RoutedAssistant(PythonModel):  # type: ignore[misc]  # mlflow is untyped here
    """One version of the assistant, answering by routed adapter."""

    def load_context(self, context: Any) -> None:  # noqa: ANN401 - mlflow's PythonModelContext
        """Verify the version's files and load the base model."""
        from components.model.workbench import Workbench
        from components.serving import bundle
        from components.serving.assistant import Assistant

        options = context.model_config
        folder = Path(context.artifacts["assistant"])
        version = bundle.read(folder, options["version"])
        if not options["candidate"]:
            bundle.need_statement(folder, version.version, options["public_key"] or None)
        base = version.settings.base_model
        if options["base_model"]:
            base = base.model_copy(update={"name": str(options["base_model"])})
        storage = version.settings.storage.model_copy(update={"models": str(options["models"] or _cache())})
        settings = version.settings.model_copy(update={"base_model": base, "storage": storage})
        self._assistant = Assistant(Workbench.load(settings), version)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ANN401
        """One row per request: its answer, the group that gave it, and the similarity it was routed by."""
        del context, params
        inputs = model_input["input"] if "input" in model_input else [None] * len(model_input)
        images = model_input["image"] if "image" in model_input else [None] * len(model_input)
        requests = [
            (instruction, text if isinstance(text, str) and text else None, _pictures(files))
            for instruction, text, files in zip(model_input["instruction"], inputs, images, strict=True)
        ]
        answers = self._assistant.answer(requests)
        return pd.DataFrame(
            {
                "answer": [answer.text for answer in answers],
                "group": [answer.group for answer in answers],
                "similarity": [answer.similarity for answer in answers],
                "nearest_task": [answer.nearest_task for answer in answers],
            }
        )


def _pictures(files: Any) -> list[Any]:  # noqa: ANN401 - a list of bytes, or None; the signature sees to it
    from components.tasks.images import Picture

    return [Picture.of(file) for file in ([] if files is None else files)]


mlflow.models.set_model(RoutedAssistant())
