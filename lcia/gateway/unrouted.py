"""Instructions that no task answered, on their way to the service, where people may take them as wordings.

They are kept only where `gateway.keep` allows it, with personal data masked, without their input, and in memory alone
until the next report. A caller who asks on and on fills the few places there are, and no more.
"""

from collections import deque
from typing import Any

from components.grouping.route import Route
from components.quality.personal import mask_personal_data
from components.serving.conversation import Conversation

PLACES = 50
"""Instructions between two reports; further ones are dropped."""
LONGEST = 300
"""Characters of an instruction; longer first lines are texts to work on rather than requests."""


class Unrouted:
    """Instructions since the last report."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, str]] = deque()

    def add(self, conversation: Conversation, route: Route) -> None:
        """Note the instruction of a request that went to no task, with the task that was nearest."""
        text = " ".join(conversation.instruction.split())
        if route.group is None and route.unsure_between is None and route.nearest_task and 0 < len(text) <= LONGEST:
            entry = {"task": route.nearest_task, "text": mask_personal_data(text)}
            if len(self._waiting) < PLACES and entry not in self._waiting:
                self._waiting.append(entry)

    def report(self) -> dict[str, Any]:
        """The field of the report; none if there is nothing to tell."""
        entries = list(self._waiting)
        self._waiting.clear()
        return {"no_route": entries} if entries else {}
