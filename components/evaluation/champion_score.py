"""The model on a task before it is learnt: the champion's score, and how hard the task is to read."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from components.evaluation.carrying import Predictor, Version, Work
from components.evaluation.prediction import Evaluator
from components.evaluation.scored import scored_rows
from components.grouping.pool import Pool
from components.model.prompts import control_of
from components.model.workbench import Workbench
from components.quality.known import ChampionScore
from components.settings import Settings
from components.storage.objects import ObjectMissing, ObjectStore
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot

READ_ROWS = 8
"""Texts read in one pass: their logits (tokens, vocabulary) are the largest thing in memory."""


def champion_score(
    store: ObjectStore,
    settings: Settings,
    bench: Workbench,
    pool: Pool,
    snapshot: Snapshot,
    rows: Sequence[Example],
    nearest: str | None,
    evaluation: Mapping[str, Any] | None,
) -> ChampionScore:
    """Predict `rows` of a task by the pool, each routed by its instruction as at inference.

    `evaluation` is the champion's own record: its score on the task `resembled` is read from there, not made again.
    """
    version = Version.of(pool, settings)
    predictor = Predictor(store, settings, Evaluator(bench.trunk, bench.slot, settings.evaluation.batch_rows))
    queries = predictor.queries(version, snapshot, rows, version.groups(rows))
    scores = [prediction.score for prediction in predictor.fresh([Work(queries, "champion")], scores_only=True)[0]]
    before = _scores(store, nearest, evaluation)
    return ChampionScore(
        score=round(sum(scores) / len(scores), 6),
        rows=len(scores),
        resembled=nearest,
        resembled_score=round(sum(before) / len(before), 6) if before else None,
        resembled_rows=len(before),
    )


def _scores(store: ObjectStore, name: str | None, evaluation: Mapping[str, Any] | None) -> list[float]:
    if name is None or evaluation is None or name not in evaluation["predictions"]:
        return []
    try:
        return [row["score"] for row in scored_rows(store, evaluation["predictions"][name])]
    except ObjectMissing:
        return []


@torch.no_grad()
def bits_per_character(bench: Workbench, texts: Sequence[str]) -> list[float]:
    """Bits the base model alone needs for each text, all tokens but the first, divided by its characters.

    Perplexity by characters, so that texts of other scripts, which take more tokens, compare. A text is cut at
    `base_model.max_tokens`.
    """
    base, trunk = bench.base, bench.trunk
    control = control_of(base.reader)
    rows = [control.content(text)[: base.settings.longest] for text in texts]
    out: list[float] = []
    with bench.slot.switched_off():
        for start in range(0, len(rows), READ_ROWS):
            part = rows[start : start + READ_ROWS]
            states = trunk.states(part, READ_ROWS)
            for ids, output in zip(part, trunk.outputs(states), strict=True):
                logits = trunk.head(output[:-1]).float()
                nats = float(cross_entropy(logits, torch.tensor(ids[1:], device=logits.device), reduction="sum"))
                length = len(base.tokenizer.decode(ids))
                out.append(nats / math.log(2) / max(length, 1))
    return out
