"""Environment to set before the heavy libraries are imported: state inside `LCIA_HOME`, telemetry off, quiet."""

import logging
import os
import unicodedata
import warnings
from pathlib import Path

from components.errors import LciaError

QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "ZENML_AUTO_OPEN_DASHBOARD": "false",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "ZENML_LOGGING_COLORS_DISABLED": "true",
    "ZENML_LOGGING_VERBOSITY": "CRITICAL",
}
"""Telemetry off and output quiet; a variable that is set already keeps its value.

ZenML logs a traceback for every failed step; the worker reports it in one line, and what is no `LciaError` is
raised on with its own traceback."""


LOCAL = ("localhost", "127.0.0.1", "::1")
"""This machine, as addresses name it."""


class StateUnusable(LciaError):
    """The state folder can't be written to."""


def found_state(config: Path | None) -> tuple[Path | None, Path]:
    """The settings file, if any, and the state folder: `LCIA_HOME`, else `.lcia` beside that file.

    Raises:
        StateUnusable: the folder's name has characters that no URL of a file can carry.
    """
    here = [config] if config else [Path("zenml.yaml"), Path(__file__).parents[1] / "zenml.yaml"]
    file = next((path for path in here if path.exists()), config)
    folder = file.absolute().parent if file else Path.cwd()
    home = Path(os.environ.get("LCIA_HOME") or folder / ".lcia").absolute()
    # SQLAlchemy, and MLflow and ZenML with it, read `?` as the end of a path; fsspec reads `::` as a chain of URLs.
    wrong = next((part for part in ("?", "::") if part in str(home)), None)
    control = any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in str(home))
    if wrong is None and not control:
        return file, home
    fault = repr(wrong) if wrong else "control characters or bytes that are no UTF-8"
    raise StateUnusable(
        f"the state folder {str(home)!r} has {fault} in its path, and the databases of MLflow and ZenML can't be "
        "opened with that; rename the folder, or set LCIA_HOME to one without"
    )


def prepare(home: Path) -> None:
    """Set the process's environment. Call it before zenml, mlflow or torch are imported.

    Raises:
        StateUnusable: `home` can't be made or written to.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # misses a package, needlessly
    try:
        Path.home()
    except RuntimeError:  # a container's user without HOME and without a name; libraries ask for it
        os.environ["HOME"] = str(home)
    _go_straight_to_this_machine()
    # Waiting OpenMP threads otherwise spin and take the cores from each other.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # ZenML keeps a database of its own; losing it costs dashboards only.
    os.environ["ZENML_CONFIG_PATH"] = str(home / "zenml")
    # Runs go to its file even after a `zenml login --local` pointed the same folder at a dashboard's server.
    database = home / "zenml" / "local_stores" / "default_zen_store" / "zenml.db"
    if not os.environ.get("ZENML_STORE_URL", "").startswith("http"):  # a ZenML server that was chosen stays
        os.environ["ZENML_STORE_URL"] = f"sqlite:///{database}"
    os.environ.setdefault("MPLCONFIGDIR", str(home / "cache" / "matplotlib"))
    try:
        (home / "cache" / "matplotlib").mkdir(parents=True, exist_ok=True)
        (home / "zenml").mkdir(parents=True, exist_ok=True)
        config = home / "zenml" / "config.yaml"
        if not config.exists():  # holds also for `zenml` commands that people run on this folder later
            config.write_text("analytics_opt_in: false\n", encoding="utf-8")
    except OSError as error:
        raise StateUnusable(
            f"the state folder {home} can't be made or written to ({error.strerror}: {error.filename}); give it to the "
            "user who runs lcia, or set LCIA_HOME to another folder"
        ) from error


def _go_straight_to_this_machine() -> None:
    """Keep MLflow, ZenML and other readers of the environment's proxy from using it for this machine."""
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in hosts.split(",") if name.strip()]
    if "*" not in names:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*names, *LOCAL]))


def stay_offline() -> None:
    """Keep the Hugging Face libraries from asking the hub; for base models that are on this machine."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
