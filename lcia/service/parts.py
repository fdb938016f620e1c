"""Parts of versions over HTTP, for gateways: apart from the table of operations, because they are bytes."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from components.identity.access import Forbidden
from lcia.instance import Instance
from lcia.operations.serving import part
from lcia.operations.serving_params import PartParams
from lcia.service.callers import Caller, caller_of, log_denial
from lcia.service.limits import Rates
from lcia.service.streams import Slots, Stream

EACH, MOST = 8, 32
"""Parts that one program, and all of them, may fetch at the same time: each is in memory while it is sent."""
PIECE = 256 * 1024
"""Bytes that are handed to the connection at a time."""
KIND = "application/octet-stream"


def add_parts(app: FastAPI, instance: Instance, rates: Rates) -> None:
    """Add GET /v1/part. A version has hundreds of parts, so what is limited is not their rate but their places."""
    places = Slots("parts of versions on their way", EACH, MOST)

    def who(request: Request) -> Caller:
        return caller_of(request, instance, rates, counted=False)

    @app.get(
        "/v1/part",
        summary="One object of a version, by its digest: a file of its bundle, an adapter's folder or a file in it.",
        operation_id="part",
        response_class=StreamingResponse,
        responses={200: {"content": {KIND: {"schema": {"type": "string", "format": "binary"}}}}},
        tags=["look"],
    )
    def one_part(params: Annotated[PartParams, Query()], caller: Annotated[Caller, Depends(who)]) -> Stream:
        try:
            caller.need("serve", None)
        except Forbidden as why:
            log_denial(instance, caller, "part", "serve", why)
            raise
        places.take(caller.person.name)
        try:
            content = part(instance, params.version, params.digest)
            return Stream(_pieces(content), places, caller.person.name, KIND, content_length=str(len(content)))
        except BaseException:
            places.give_back(caller.person.name)
            raise


def _pieces(content: bytes) -> Iterator[bytes]:
    return (content[start : start + PIECE] for start in range(0, len(content), PIECE))
