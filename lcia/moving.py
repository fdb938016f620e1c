"""A state that was moved or copied: noticed by what MLflow's and ZenML's records say, and mended by `lcia sync`."""

from typing import Any

from components.audit.log import Actor, append
from components.promotion import registry_places
from components.promotion.registry_places import StateMoved
from infra import zenml_places
from lcia.workplace import Workplace


def moved(place: Workplace) -> str | None:
    """Where MLflow or ZenML say this state's files are, if that is elsewhere; read without either of them."""
    return mlflow_moved(place) or zenml_places.moved_from(place.home)


def mlflow_moved(place: Workplace) -> str | None:
    """Where MLflow's own database says the files are, if that is elsewhere: then it serves those, or nothing."""
    told = place.settings.registry
    recorded = registry_places.recorded_place(told.tracking_uri, told.experiment)
    return registry_places.moved_from(recorded, told.artifacts)


def need_here(place: Workplace) -> None:
    """Refuse to erase while records name the files of another place: those are another state's, or gone.

    Raises:
        StateMoved: they do; nothing was changed.
        RegistryError: MLflow can't be reached, so nobody knows.
    """
    old = moved(place)
    if old is not None:
        raise StateMoved(
            f"the records of MLflow or ZenML say that the files of this state are at {old}, but it is in {place.home}: "
            "it was moved or copied. Nothing was changed; `lcia sync` corrects the records, then run this again"
        )


def mend(place: Workplace, actor: Actor) -> list[dict[str, Any]]:
    """Make the records of MLflow and ZenML name this state's own files; what was corrected, which the log keeps.

    Raises:
        StateMoved: MLflow's records are not this state's alone.
        RegistryError: MLflow can't be reached.
    """
    told, mended = place.settings.registry, []
    recorded = registry_places.recorded_place(told.tracking_uri, told.experiment) or place.registry.recorded_place()
    old = registry_places.moved_from(recorded, told.artifacts)
    if old is not None:
        count = registry_places.correct(told.tracking_uri, place.home, old, told.artifacts)
        mended.append({"records": "MLflow", "from": old, "to": told.artifacts, "corrected": count})
    before = zenml_places.moved_from(place.home)
    if before is not None:
        to = str(zenml_places.stores(place.home))
        mended.append({"records": "ZenML", "from": before, "to": to, "corrected": zenml_places.correct(place.home)})
    if mended:
        with place.promoter.begin() as connection:
            append(connection, "registry.moved", actor, place.assistant, {"records": mended})
    return mended
