"""Greedy decoding with a key-value cache; rows that begin alike share the cache of their prefix.

`continue_greedy` goes on from keys and values that a pass of the trunk left, so nothing is read twice.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from components.model.trunk import Past, windows
from components.model.vision import Sight


@dataclass(frozen=True)
class Generated:
    """Greedy continuation without its end token, and the smallest top-2 logit gap on the way."""

    tokens: tuple[int, ...]
    gap: float


@torch.no_grad()
def generate_greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Collection[int],
    batch_rows: int,
    progress: Callable[[int], None] | None = None,
    sight: Sight | None = None,
) -> list[Generated]:
    """Greedy continuation of every prompt until one of `ends` or `max_new_tokens` tokens.

    Prompts with images need the model's `sight`; they are read one by one, then continued together.
    """
    out = [Generated((), 0.0)] * len(prompts)
    visual = [i for i, prompt in enumerate(prompts) if sight and Sight.opening_length(prompt)]
    if sight and visual:
        results = _continue_visual(model, sight, [prompts[i] for i in visual], max_new_tokens, ends, batch_rows)
        for index, result in zip(visual, results, strict=True):
            out[index] = result
        if progress:
            progress(len(visual))
    plain = [i for i in range(len(prompts)) if i not in set(visual)] if visual else range(len(prompts))
    longest = max(map(len, prompts), default=0) + max_new_tokens
    share = _may_share(model, longest)
    for prefix, places in shared_prefixes([prompts[i] for i in plain]) if share else [(0, list(range(len(plain))))]:
        members = [plain[place] for place in places]
        cache = None
        if prefix:
            cache = DynamicCache()
            ids = torch.tensor([list(prompts[members[0]][:prefix])], device=model.device)
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        order = sorted(members, key=lambda i: (len(prompts[i]), i))
        for start in range(0, len(order), batch_rows):
            batch = order[start : start + batch_rows]
            tails = [prompts[i][prefix:] for i in batch]
            for index, result in zip(batch, _decode(model, tails, prefix, cache, max_new_tokens, ends), strict=True):
                out[index] = result
            if progress:
                progress(len(batch))
    return out


def _may_share(model: PreTrainedModel, longest: int) -> bool:
    """True if padding may stand between a prefix and the rest of a row.

    Windows go by places in the cache, in which padding counts, so no row may come to the end of one.
    """
    kinds = windows(model.get_decoder())
    return kinds is not None and all(window is None or longest <= window for window in kinds.values())


def _continue_visual(
    model: PreTrainedModel,
    sight: Sight,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Collection[int],
    batch_rows: int,
) -> list[Generated]:
    """As `generate_greedy`, for prompts with images."""
    out: list[Generated] = []
    for start in range(0, len(prompts), batch_rows):
        first: list[Generated] = []
        rows: list[Begun] = []
        for prompt in prompts[start : start + batch_rows]:
            cache = DynamicCache()
            top = sight.logits(prompt, cache).float().topk(2)
            token, gap = int(top.indices[0]), float(top.values[0] - top.values[1])
            first.append(Generated(() if token in ends else (token,), gap))
            if token not in ends and max_new_tokens > 1:
                layers = {number: (layer.keys[0], layer.values[0]) for number, layer in enumerate(cache.layers)}
                past = Past(layers, torch.arange(len(prompt), device=model.device))
                rows.append(Begun(token, len(prompt), (past,), max_new_tokens - 1, sight.position(prompt)))
            else:
                rows.append(Begun(token, 0, (), 0))
        going = [place for place, row in enumerate(rows) if row.limit]
        continuations = continue_greedy(model, [rows[place] for place in going], ends, batch_rows)
        for place, rest in zip(going, continuations, strict=True):
            head = first[place]
            first[place] = Generated((*head.tokens, *rest.tokens), min(head.gap, rest.gap))
        out += first
    return out


def _decode(
    model: PreTrainedModel,
    tails: Sequence[Sequence[int]],
    prefix: int,
    prefix_cache: DynamicCache | None,
    max_new_tokens: int,
    ends: Collection[int],
) -> list[Generated]:
    ids, mask, positions = left_padded(tails, model.device, prefix)
    cache = copy.deepcopy(prefix_cache) if prefix_cache is not None else DynamicCache()
    if prefix_cache is not None:
        cache.batch_repeat_interleave(len(tails))
    return _loop(model, ids, mask, positions, cache, [max_new_tokens] * len(tails), ends)


@dataclass(frozen=True)
class Begun:
    """A row under way: its last token is still to be read, `pasts` hold keys and values of the `length` before it.

    `pasts` are those of the layers below and above the adapters' first one, or of all; `limit` tokens may still be
    decoded. `position` is the token's position as the architecture counts it, None if that is `length`.
    """

    token: int
    length: int
    pasts: tuple[Past, ...]
    limit: int
    position: int | None = None


@torch.no_grad()
def continue_greedy(
    model: PreTrainedModel,
    rows: Sequence[Begun],
    ends: Collection[int],
    batch_rows: int,
    progress: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Greedy continuation of each row until one of `ends` or its limit; the adapter must be the one of `pasts`."""
    out = [Generated((), float("inf"))] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (rows[i].limit, rows[i].length, i))
    for start in range(0, len(order), batch_rows):
        batch = order[start : start + batch_rows]
        members = [rows[i] for i in batch]
        width = max(row.length for row in members)
        ids = torch.tensor([[row.token] for row in members], device=model.device)
        mask = torch.tensor(
            [[0] * (width - row.length) + [1] * (row.length + 1) for row in members], device=model.device
        )
        places = [[row.length if row.position is None else row.position] for row in members]
        positions = torch.tensor(places, device=model.device)
        limits = [row.limit for row in members]
        results = _loop(model, ids, mask, positions, _joint_cache(members, width), limits, ends)
        for index, result in zip(batch, results, strict=True):
            out[index] = result
        if progress:
            progress(len(batch))
    return out


def _joint_cache(rows: Sequence[Begun], width: int) -> DynamicCache:
    """One cache for all rows, left-padded to `width`."""
    cache = DynamicCache()
    layers = sorted(number for past in rows[0].pasts for number in past.layers)
    for number in layers:
        pairs = []
        for row in rows:
            past = next(past for past in row.pasts if number in past.layers)
            pairs.append([t[:, past.path[: row.length]] for t in past.layers[number]])
        keys, values = (
            torch.stack([nn.functional.pad(pair[k], (0, 0, width - pair[k].shape[1], 0)) for pair in pairs])
            for k in (0, 1)
        )
        cache.update(keys, values, number)
    return cache


def _loop(
    model: PreTrainedModel,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    cache: DynamicCache,
    limits: Sequence[int],
    ends: Collection[int],
) -> list[Generated]:
    """Read `ids` (rows, width) after what is in `cache`, then decode up to `limits` tokens a row."""
    rows = len(limits)
    tokens: list[list[int]] = [[] for _ in range(rows)]
    gaps: list[float] = [float("inf")] * rows
    running = list(range(rows))  # row numbers still in the batch, in order
    over: set[int] = set()
    while len(over) < rows:
        logits = next_logits(model, ids, mask, positions, cache)
        top = logits.float().topk(2, dim=-1)
        best = top.indices[:, 0].tolist()
        gap = (top.values[:, 0] - top.values[:, 1]).tolist()
        for place, i in enumerate(running):
            if i in over:
                continue
            gaps[i] = min(gaps[i], gap[place])
            if best[place] not in ends:
                tokens[i].append(best[place])
            if best[place] in ends or len(tokens[i]) == limits[i]:
                over.add(i)
        ids = torch.tensor(best, device=model.device)[:, None]
        going = [place for place, i in enumerate(running) if i not in over]
        if 0 < 2 * len(going) <= len(running):  # rows that ended no longer cost anything
            keep = torch.tensor(going, device=model.device)
            cache.batch_select_indices(keep)
            ids, mask, positions = ids[keep], mask[keep], positions[keep]
            running = [running[place] for place in going]
        mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [Generated(tuple(t), g) for t, g in zip(tokens, gaps, strict=True)]


def left_padded(rows: Sequence[Sequence[int]], device: torch.device, prefix: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids (rows, width), mask (rows, prefix + width) and positions (rows, width).

    Every row's last token stands in the last column; `prefix` cached tokens come before.
    """
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), prefix + width, dtype=torch.long)
    mask[:, :prefix] = 1
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(list(row))
        mask[i, prefix + width - len(row) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    return ids, mask, (mask.cumsum(1) - 1).clamp_min(0)[:, prefix:]


def next_logits(model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """Logits of the token after the last column (rows, vocabulary); `cache` takes up what was read."""
    logits: Tensor = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits


def shared_prefixes(
    rows: Sequence[Sequence[int]], key_tokens: int = 24, least: int = 8
) -> Iterator[tuple[int, list[int]]]:
    """Groups of rows with the length of their longest common prefix (0: too short to be worth it).

    Rows are bucketed by their first `key_tokens` tokens; each row belongs to exactly one group, and
    at least one token per row stays outside the prefix.
    """
    buckets: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        buckets[tuple(row[:key_tokens])].append(index)
    alone: list[int] = []
    for members in buckets.values():
        if len(members) < 4:
            alone += members
            continue
        shortest = min(len(rows[i]) for i in members) - 1
        columns = zip(*(rows[i][:shortest] for i in members), strict=True)
        length = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        yield (length if length >= least else 0), members
    if alone:
        yield 0, alone
