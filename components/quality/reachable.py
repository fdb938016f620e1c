"""Rules on answers that can't score: out of reach of decoding, choices, metric or context."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from components.quality.rule import Rule
from components.settings import ValidationSettings
from components.tasks.rows import Example
from components.tasks.task_file import Task
from components.words import words

LONG_ANSWER = 30
"""Words of an answer that a model will hardly ever give word for word."""
MOSTLY = 0.5
"""Share of answers up to `LONG_ANSWER` words from which whole answers may be compared."""


@dataclass(frozen=True)
class OutOfReach:
    """Reason why no answer can score as a row's reference should; `tokens` is the limit it needs, if it is too low."""

    words: str
    tokens: int = 0


Reach: TypeAlias = Callable[[Task, Sequence[Example]], Sequence[OutOfReach | None]]
"""Per row the reason why its reference is out of reach; None if it is within reach."""


def reach_column(reach: Reach | None, task: Task, rows: Sequence[Example]) -> list[str]:
    """Column of the rule: an empty text for a row within reach, and for all rows without a tokenizer."""
    return [fault.words if fault else "" for fault in reach(task, rows)] if reach else [""] * len(rows)


def reach_rule(reach: Reach | None, task: Task, rows: Sequence[Example], settings: ValidationSettings) -> Rule:
    """The rule that few answers of a split are out of reach; names the worst row and the remedy."""
    from great_expectations import expectations as gxe

    faults = reach(task, rows) if reach else ()
    worst = max(
        ((fault.tokens, -place, fault.words) for place, fault in enumerate(faults) if fault),
        default=None,
    )
    words = f"at most {settings.max_unreachable:.1%} of the answers out of reach of the task's decoding and metric"
    if worst and worst[0]:
        words += f": set decoding.max_new_tokens in task.yaml to {worst[0]} or more, or leave it out"
    return Rule(
        "reachable",
        "hard",
        words,
        gxe.ExpectColumnValuesToBeInSet(column="unreachable", value_set=[""], mostly=1 - settings.max_unreachable),
        shows="unreachable",
        worst=f"row {1 - worst[1]}: {worst[2]}" if worst else "",
    )


def compared_words(task: Task, rows: Sequence[Example]) -> list[int]:
    """Words per answer if whole answers are compared and no choices are given; else 0."""
    free = task.metric == "exact_match" and task.decoding.mode == "generate" and task.choices is None
    return [len(words(row.output)) if free and row.choices is None else 0 for row in rows]


def whole_answer_rule() -> Rule:
    """The rule against exact match on long free text, which a model hardly ever gives word for word."""
    from great_expectations import expectations as gxe

    return Rule(
        "exact_match_on_long_text",
        "soft",
        f"under metric exact_match most answers of at most {LONG_ANSWER} words; rouge_l or token_f1 score longer ones",
        gxe.ExpectColumnValuesToBeBetween(column="compared_words", max_value=LONG_ANSWER, mostly=MOSTLY),
    )
