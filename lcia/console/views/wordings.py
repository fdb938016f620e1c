"""The page of wordings: ways to ask for each learnt task, proposals to accept or decline, and a form for new ones."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lcia.console.base import Console
from lcia.operations.wordings import learnt_tasks


def routes(console: Console) -> APIRouter:
    """/wordings and /wordings/TASK."""
    router = APIRouter(include_in_schema=False)

    @router.get("/wordings")
    def every(request: Request) -> Response:
        """Names of the tasks that the reader may change, each with a page of its own."""
        reader = console.reader(request)
        tasks = [each for each in learnt_tasks(console.instance) if reader.may("submit", each.owner)]
        return console.page(reader, "wordings.html", tasks=tasks)

    @router.get("/wordings/{task}")
    def one(task: str, request: Request) -> Response:
        reader = console.reader(request)
        answer = console.ask(reader, "wordings", task=task)
        return console.page(reader, "wordings_task.html", task=answer["tasks"][0], proposals=answer["proposals"])

    return router
