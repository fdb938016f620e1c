"""Weights of the route to gateways, from the canary under way: `lcia trial --json | python -m infra.canary`.

They are a JSON patch of the HTTPRoute in k8s/overlays/inference-extension, whose first backend are gateways that answer
as the champion, and whose second are gateways that answer as the candidate. A patch that is out of date does no harm:
once a trial has ended the second gateways answer as the champion, too.
"""

import sys
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from components.errors import LciaError

WHOLE = 10_000
"""Sum of the weights: one is a hundredth of a percent."""
HEAD = """\
# Written by `lcia trial --json | python -m infra.canary`: champion, candidate. On a cluster at once:
# `kubectl -n lcia patch httproute gateway --type json --patch-file weights.yaml`.
"""


class TrialsUnreadable(LciaError):
    """Input that is not the answer of the operation `trials`."""


class _Trial(BaseModel):
    kind: str
    share: Annotated[float, Field(ge=0, le=1)]
    state: str
    signed: bool
    over: str | None


class _Trials(BaseModel):
    trials: list[_Trial]


def weights(trials: str) -> tuple[int, int]:
    """Weights of champion and candidate; `trials` is the answer of the operation `trials`, as JSON.

    Raises:
        TrialsUnreadable: it is no such answer.
    """
    try:
        rows = _Trials.model_validate_json(trials).trials
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the input"
        raise TrialsUnreadable(f"{where}: {fault['msg']}; expected the output of `lcia trial --json`") from error
    shares = [
        row.share
        for row in rows
        if row.kind == "canary" and row.state == "under_way" and row.signed and row.over is None
    ]
    candidate = round(WHOLE * sum(shares))  # at most one is under way
    return WHOLE - candidate, candidate


def patch(trials: str) -> str:
    """JSON patch of the HTTPRoute, as YAML; for `trials` see `weights`.

    Raises:
        TrialsUnreadable: see there.
    """
    lines = [
        f"- {{op: replace, path: /spec/rules/0/backendRefs/{place}/weight, value: {weight}}}\n"
        for place, weight in enumerate(weights(trials))
    ]
    return HEAD + "".join(lines)


if __name__ == "__main__":
    try:
        print(patch(sys.stdin.read()), end="")
    except TrialsUnreadable as error:
        sys.exit(str(error))
