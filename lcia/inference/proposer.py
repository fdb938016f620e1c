"""Proposals of further wordings for a learnt task, by the model that the settings name or by the base model.

The model is shown the task's description and some ways to ask for it, never an input or an answer. Its texts are data
from outside: read by type, bounded, and used by nobody before a person accepts them.
"""

import os
import re
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any

import httpx2

from components.audit.log import Actor
from components.errors import LciaError
from components.grouping.pool import GroupTask
from components.settings import ProposalSettings, Settings
from components.tasks.wordings import WordingsRefused, clean_wording
from components.visible import visible
from lcia.instance import Instance
from lcia.operations import routing, wordings
from lcia.operations.params import RouteRequest

KEY = "LCIA_PROPOSER_KEY"
"""Variable with the key that the configured model's server is shown."""
SHOWN = 8
"""Ways to ask that the model is shown."""
TRIES = 3
"""Texts that the base model writes for each proposal that is wanted: many are repetitions or about something else."""
LONGEST = 300
"""Characters of a proposal; what is longer is no request but an answer."""
TOKENS, TEMPERATURE, TOP_P = 60, 0.8, 0.95
WRITTEN = 3
"""Lines that are taken of one text of the base model: later ones drift away."""
EXAMPLE = """Write short requests that ask for the same thing in other words.

Thing: What the weather in a city is going to be.
Requests:
- Will it rain in Rome tomorrow?
- How is the weather going to be?
- Do I need an umbrella on Friday?
- Tell me the forecast.
- Is it going to be sunny?"""
NEAR = 0.5
"""Share of the router's threshold that a text needs to be taken for a request of the task at all."""
QUOTED = 300
"""Characters of a refusal that are quoted."""
PATIENCE = 120.0
"""Seconds that the configured model's server may take."""


class ProposerFailed(LciaError):
    """The configured model does not answer, or answers something else than text."""


def propose(instance: Instance, actor: Actor, task: str, count: int) -> dict[str, Any]:
    """Let a model write about `count` wordings of a learnt task, and put the usable ones before people.

    Texts that the champion's router takes for another task are left out: as wordings they would take its requests.

    Raises:
        WordingsRefused: the champion has not learnt the task.
        ProposerFailed: the configured model does not answer.
    """
    learnt = wordings.need_task(instance, task)
    write = _by_server if instance.settings.proposals.address else _by_base_model
    usable, elsewhere = _usable(instance, learnt.entry, write(instance.settings, learnt.entry, count), count)
    new = wordings.propose(instance, actor, learnt.label, usable)["new"]
    return {"task": learnt.entry.name, "new": new, "texts": usable, "elsewhere": elsewhere}


def _usable(instance: Instance, entry: GroupTask, texts: Iterator[str], count: int) -> tuple[list[str], int]:
    """The first `count` new texts that are nearest to the task, and the number that were nearer to others."""
    earlier, elsewhere = {_plain(t) for t in entry.texts}, 0
    usable: list[str] = []
    for text in texts:
        try:
            wording = clean_wording(text)
        except WordingsRefused:
            continue
        if len(wording) > LONGEST or _plain(wording) in earlier:
            continue
        earlier.add(_plain(wording))
        route = routing.route(instance, [RouteRequest(instruction=wording)])["routes"][0]
        if route["nearest_task"] != entry.name:
            elsewhere += 1
            continue
        if route["similarity"] < NEAR * route["threshold"]:
            continue
        usable.append(wording)
        if len(usable) == count:
            break
    return usable, elsewhere


def _by_base_model(settings: Settings, entry: GroupTask, count: int) -> Iterator[str]:
    """Texts of the base model alone, the same in each run: it goes on with a list of the task's wordings.

    A small model asked to rephrase explains instead; shown a list like the one wanted, and its beginning, it lists.
    """
    from components.model.prompts import control_of, render_turns, turns_of
    from components.model.stepwise import decode
    from components.model.workbench import Workbench

    bench = Workbench.load(settings)
    base, control = bench.base, control_of(bench.base.reader)
    words = f"{EXAMPLE}\n\nThing: {_description(entry)}\nRequests:"
    prompt = render_turns(base.reader, base.settings, turns_of(base.settings, words, None))
    for seed in range(TRIES * count):
        begin = [entry.texts[(seed + place) % len(entry.texts)] for place in range(min(SHOWN, len(entry.texts)))]
        beginning = "\n".join(f"- {text}" for text in begin) + "\n-"
        tokens = (*prompt, *control.content(beginning))
        with bench.slot.switched_off():
            steps = decode(base.model, tokens, TOKENS, control.ends, temperature=TEMPERATURE, top_p=TOP_P, seed=seed)
            text = control.tokenizer.decode([step.token for step in steps], skip_special_tokens=True)
        first, *others = text.split("\n")
        items = takewhile(lambda line: line.startswith("- "), others[:-1])  # the last line may be cut
        yield from islice((line for each in (first, *items) for line in _lines(each)), WRITTEN)


def _by_server(settings: Settings, entry: GroupTask, count: int) -> Iterator[str]:
    """Texts of the configured model, from one request."""
    proposals = settings.proposals
    examples = "\n".join(f"- {text}" for text in entry.texts[:SHOWN])
    words = (
        f"A task is described so: {_description(entry)}\nPeople ask for it in these words:\n{examples}\n"
        f"Write {count} other ways in which people would ask for it, different in words and style, one a line, and "
        "nothing else."
    )
    body = {"model": proposals.model, "messages": [{"role": "user", "content": words}], "temperature": TEMPERATURE}
    yield from _lines(_send(proposals, body))


def _description(entry: GroupTask) -> str:
    return (entry.wordings or entry.instructions)[0]


def _send(proposals: ProposalSettings, body: dict[str, Any]) -> str:
    key, address = os.environ.get(KEY), f"{proposals.address.rstrip('/')}/chat/completions"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx2.Client(timeout=PATIENCE, follow_redirects=False) as client:
            reply = client.post(address, json=body, headers=headers)
        text = reply.json()["choices"][0]["message"]["content"] if reply.is_success else None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise ProposerFailed(
            f"the model at {proposals.address} (proposals.address) gave no answer that can be read "
            f"({type(error).__name__}); expected a server with OpenAI's API, as http://HOST:PORT/v1"
        ) from error
    if not isinstance(text, str):
        words = visible(reply.text[:QUOTED])
        raise ProposerFailed(f"the model at {proposals.address} answers with status {reply.status_code}: {words}")
    return text


def _lines(text: str) -> Iterator[str]:
    """Lines of an answer, without the numbers, dashes and quotes that models put around them."""
    for line in text.splitlines():
        plain = re.sub(r"^\s*(?:[-*•]|\d{1,3}[.)])\s*", "", line).strip().strip('"“”').strip()
        if plain:
            yield plain


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
