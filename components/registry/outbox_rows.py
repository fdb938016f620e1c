"""Rows of the outbox; one that no version of lcia wrote does not keep the others from being read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from sqlalchemy import ColumnElement, Connection, Text, select, type_coerce

from components.errors import LciaError
from components.storage.objects import Json, NotCanonical, parse_json
from components.storage.tables import outbox

SERVING = ("promote", "rollback")
"""Kinds of rows that say which version is the champion."""
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "candidate": ("number",),
    "state": ("state",),
    "marks": ("marks",),
    "forget": (),
    **dict.fromkeys(SERVING, ()),
}
"""Kind -> required fields of its payload besides `digest`."""


class OutboxDamaged(LciaError):
    """A row that no version of lcia wrote."""


class _Payload(BaseModel):
    """The fields of a payload that are read; others are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")

    digest: str = Field(min_length=1)
    number: int | None = None
    state: str = ""
    marks: list[str] = []
    tags: dict[str, JsonValue] = {}
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    params: dict[str, JsonValue] = {}
    metrics: dict[str, float] = {}
    datasets: list[dict[str, JsonValue]] = []


@dataclass(frozen=True)
class OutboxRow:
    """One row, whole or damaged."""

    id: int
    assistant: str
    kind: str
    text: str
    """The payload, as stored."""
    payload: dict[str, Json]
    """Empty if the row is damaged."""
    damage: str
    """Description of the damage; '' if there is none."""
    attempts: int
    error: str | None
    done_at: datetime | None
    parked_at: datetime | None
    packing: dict[str, str] | None

    @property
    def digest(self) -> str:
        """The version it is about; '' if the row is damaged."""
        return str(self.payload.get("digest", ""))

    def need_whole(self) -> None:
        """Refuse a damaged row.

        Raises:
            OutboxDamaged: see the class.
        """
        if self.damage:
            raise OutboxDamaged(self.damage)


def rows(connection: Connection, *conditions: ColumnElement[bool]) -> list[OutboxRow]:
    """Rows that meet the conditions, oldest first."""
    columns = [column for column in outbox.c if column.name != "payload"]
    text = type_coerce(outbox.c.payload, Text).label("payload")
    query = select(*columns, text).where(*conditions).order_by(outbox.c.id)
    results = []
    for row in connection.execute(query).mappings():
        text_ = str(row["payload"])
        payload, damage = _read(int(row["id"]), str(row["kind"]), text_)
        results.append(
            OutboxRow(
                int(row["id"]),
                str(row["assistant"]),
                str(row["kind"]),
                text_,
                payload,
                damage,
                int(row["attempts"]),
                row["error"],
                row["done_at"],
                row["parked_at"],
                row["packing"],
            )
        )
    return results


def _read(identity: int, kind: str, text: str) -> tuple[dict[str, Json], str]:
    """A payload, and a description of its damage."""
    where = f"outbox row {identity} ({kind}) is damaged"
    advice = "no version of lcia wrote it so: restore the database from a backup, and find out who else writes to it"
    if kind not in _NEEDED:
        return {}, f"{where}: its kind is {kind!r}, expected {', '.join(_NEEDED)}; {advice}"
    try:
        payload = parse_json(text.encode("utf-8", errors="replace"))
        fields = _Payload.model_validate(payload)
    except NotCanonical as error:
        return {}, f"{where}: its payload is {error}; {advice}"
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, wrong["loc"])) or "the payload"
        fault = f"{at}: {wrong['msg'].removesuffix(' or instance of _Payload')}"
        return {}, f"{where}: {fault}; {advice}"
    lacking = [name for name in _NEEDED[kind] if name not in fields.model_fields_set or getattr(fields, name) is None]
    if lacking:
        return {}, f"{where}: its payload lacks {', '.join(lacking)}; {advice}"
    return payload, ""
