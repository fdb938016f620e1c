"""Methods that are compared on a stream, as settings of the product and rights of the tasks' owners."""

from dataclasses import dataclass
from typing import Literal

ONE_ADAPTER = "grouping.rule=single"
NOTHING_OLD = ("tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0")
PLAIN = ("tuning.ema.rule=none", *NOTHING_OLD)
ALL_KEPT = "tuning.rehearsal.rows_per_task=1000000"
"""No limit of the product's own: the task's owner sets how many rows are kept."""
KEPT = 0.05
"""Share of its training rows that an owner lets the product keep, if the method has none of its own."""

GOES_ON = (
    "policy.gate.enforce=false",
    "quality.known.force=true",
    "quality.validation.min_rows=10",
    "quality.validation.max_characters=100000",
    "quality.validation.max_too_long=0.5",
)
"""Settings with which a stream goes on to its end: a candidate that the gate refuses may be approved, a task that the
champion does already is learnt, two tasks have fewer than 20 test rows, some texts are long. Every table names them."""


@dataclass(frozen=True)
class Method:
    """Way to learn a stream: overrides of the shipped settings, and the share of rows that owners let be kept."""

    name: str
    words: str
    settings: tuple[str, ...] = ()
    kept: float = KEPT
    by: Literal["worker", "tuner"] = "worker"
    """`tuner`: no setting of the product does it, so its tuner is called on the rows that the worker learnt from."""


_ALL = (
    Method("default", "shipped settings, 5 % of the rows kept"),
    Method("no_rows", "shipped settings, no rows kept", kept=0.0),
    Method("default_one", "shipped settings in one adapter, 5 % of the rows kept", (ONE_ADAPTER,)),
    Method("no_rows_one", "shipped settings in one adapter, no rows kept", (ONE_ADAPTER,), 0.0),
    Method("plain", "plain LoRA in one adapter", (ONE_ADAPTER, *PLAIN), 0.0),
    *(
        Method(
            f"replay_{percent}",
            f"plain LoRA in one adapter, {percent} % of the rows replayed",
            (ONE_ADAPTER, "tuning.ema.rule=none", "tuning.pseudo_rehearsal.share=0", ALL_KEPT),
            percent / 100,
        )
        for percent in (2, 10)
    ),
    Method("olora", "O-LoRA, rank 8 for each task (product's tuner)", PLAIN, 0.0, "tuner"),
    Method("per_task", "one adapter per task, plain LoRA", ("grouping.rule=per_task", *PLAIN), 0.0),
    Method("joint", "all tasks at once, as many row visits (product's tuner)", PLAIN, 0.0, "tuner"),
)
METHODS = {method.name: method for method in _ALL}
