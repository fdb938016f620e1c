"""The model that MLflow loads, stored as this source text (models from code): nothing is unpickled.

    model = mlflow.pyfunc.load_model("models:/assistant@champion")
    model.predict(pandas.DataFrame({"instruction": ["What does the customer want?"], "input": ["I lost my card."]}))

gives a frame with the columns `answer`, `group`, `similarity` and `nearest_task`. A list of instructions does as
well. Where the base model lies is taken from the version's settings, or from
`load_model(..., model_config={"base_model": "/models/llama", "models": "/var/cache/lcia"})`.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

CACHE = Path.home() / ".cache" / "lcia" / "models"


class RoutedAssistant(PythonModel):
    """One version of the assistant, answering by routed adapter."""

    def load_context(self, context: Any) -> None:
        """Verify the version's files and load the base model."""
        from components.serving import bundle
        from components.serving.assistant import Assistant
        from components.tuning.task import Workbench

        told = context.model_config or {}
        version = bundle.read(Path(context.artifacts["assistant"]), told.get("version"))
        base = version.settings.base_model
        if told.get("base_model"):
            base = base.model_copy(update={"name": str(told["base_model"])})
        storage = version.settings.storage.model_copy(update={"models": str(told.get("models") or CACHE)})
        settings = version.settings.model_copy(update={"base_model": base, "storage": storage})
        self._assistant = Assistant(Workbench.load(settings), version)

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per request: its answer, the group that gave it, and the similarity it was routed by."""
        del context, params
        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame({"instruction": model_input})
        inputs = frame["input"] if "input" in frame else [None] * len(frame)
        requests = [
            (str(instruction), None if text is None or pd.isna(text) or not text else str(text))
            for instruction, text in zip(frame["instruction"], inputs, strict=True)
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


mlflow.models.set_model(RoutedAssistant())
