"""Conversation of a chat request, and the instruction in it that the router goes by.

A row of a task is one user turn: its instruction, then its input on a line of its own. A request in that form gets the
very tokens that the gate's evaluation read. The instruction is the longest beginning of the turn, up to the end of a
line, that a task has learnt word by word; else its first part if the turn came in parts, else its first line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.grouping.route import Route
from components.grouping.router import Router
from components.model.prompts import Turn
from components.settings import BaseModelSettings, Fallback
from components.tasks.images import Picture


@dataclass(frozen=True)
class Conversation:
    """Turns of a request, the last one the user's, and the images it shows."""

    turns: tuple[Turn, ...]
    """Role and content, in order."""
    images: tuple[Picture, ...] = ()
    first_part: str | None = None
    """First of several text parts of the last turn: the instruction, in the caller's own division."""

    @property
    def instruction(self) -> str:
        """The instruction of the last turn as far as it can be told without a router: its first part or line."""
        return self.first_part or self.turns[-1][1].strip().partition("\n")[0]

    def complete(self, settings: BaseModelSettings) -> tuple[Turn, ...]:
        """The turns with the system prompt of the base model's settings, unless the caller has one."""
        if self.turns[0][0] == "system" or not settings.system_prompt:
            return self.turns
        return (("system", settings.system_prompt), *self.turns)

    def is_row(self, settings: BaseModelSettings) -> bool:
        """True if it has the form in which rows are evaluated: one user turn under the settings' own system prompt."""
        system = [("system", settings.system_prompt)] if settings.system_prompt else []
        return list(self.complete(settings)[:-1]) == system

    def route(self, router: Router, fallback: Fallback | None = None) -> Route:
        """Route of the last turn, else of the newest one before it that a group answers: people go on with a task.

        A turn that names one of the two tasks that an earlier one was unsure between says which is meant.
        """
        users = [content for role, content in self.turns if role == "user"]
        last = router.route_instruction(users[-1], self.first_part, fallback)
        if last.exact and last.group:
            return last
        goes_on = not last.group and not last.unsure_between
        for place in reversed(range(len(users) - 1)):
            route, choice = router.route_instruction(users[place], None, fallback), None
            if route.unsure_between:
                replies = users[:place:-1] if goes_on else users[-1:]
                choices = (router.choice_of(text, route.unsure_between) for text in replies)
                choice = next(filter(None, choices), None)
            if choice or (route.group and goes_on):
                return choice or route
        return last


def texts_of(parts: Sequence[str]) -> tuple[str, str | None]:
    """Text of a turn that came in parts, as a row would be written, and its first part if there are several."""
    return "\n".join(parts), parts[0] if len(parts) > 1 else None
