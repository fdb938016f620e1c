"""Processes that share one tuning or evaluation: each has the whole adapter and a share of the rows.

`torchrun` starts them (steps/processes.py), accelerate joins them: NCCL between GPUs, gloo between CPU processes. What
they tell each other are tensors to add up and bytes; nothing is pickled.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from components.errors import LciaError
from components.storage.objects import digest_of

if TYPE_CHECKING:  # a process that only compiles a pipeline has no torch
    from torch import Tensor

LONGEST_WAIT = timedelta(hours=2)
"""Longest wait of a process for another, which may still be predicting."""


class RanksDisagree(LciaError):
    """Processes that must hold the same content do not."""


@dataclass(frozen=True)
class Ranks:
    """This process's number among `count`, from 0; a process alone is number 0 of 1, and talks to nobody.

    `words` is the group for bytes, which never waits for a GPU.
    """

    number: int = 0
    count: int = 1
    words: Any = None

    @classmethod
    def join(cls, device: str) -> "Ranks":
        """Join the group that the launcher's environment names (`RANK`, `WORLD_SIZE`, ...); without one, be alone.

        `device` is `base_model.device`; each process then has the GPU of its number on this machine.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return ALONE
        import torch
        import torch.distributed as dist
        from accelerate import PartialState

        cpu = device == "cpu" or not torch.cuda.is_available()
        state = PartialState(cpu=cpu, backend="gloo" if cpu else "nccl")
        words = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        return cls(state.process_index, state.num_processes, words)

    @staticmethod
    def leave() -> None:
        """End the group; every process calls it."""
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """True in the process that speaks and writes for all."""
        return self.number == 0

    def add_up(self, tensors: Sequence["Tensor"]) -> None:
        """Put the sum over all processes into float tensors of one device, in place; the same bits in each process."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        # one tensor, so that all parameters cost one exchange
        flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def take_first(self, tensors: Sequence["Tensor"]) -> None:
        """Replace tensors by the first process's."""
        if self.count > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, content: bytes) -> list[bytes]:
        """Content of every process, in their order."""
        if self.count == 1:
            return [content]
        import torch
        import torch.distributed as dist

        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(content)]), group=self.words)
        # all_gather takes tensors of one size, so every content is padded to the longest
        longest = max(1, *(int(size) for size in sizes))
        own = torch.frombuffer(bytearray(content.ljust(longest, b"\0")), dtype=torch.uint8)
        texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.count)]
        dist.all_gather(texts, own, group=self.words)
        return [bytes(text[: int(size)].numpy()) for text, size in zip(texts, sizes, strict=True)]

    def any(self, yes: bool) -> bool:
        """True if any process passes True."""
        return yes if self.count == 1 else b"1" in self.gather(b"1" if yes else b"0")

    def agree(self, what: str, content: bytes) -> None:
        """Make sure that every process has the same.

        Raises:
            RanksDisagree: they do not; the run must not go on.
        """
        if self.count == 1:
            return
        digests = self.gather(digest_of(content).encode())
        odd = [number for number, other in enumerate(digests) if other != digests[0]]
        if odd:
            raise RanksDisagree(
                f"{what} of process {odd[0]} is not that of process 0 ({len(odd)} of {self.count} differ): the "
                "machines compute differently, or their shared folder shows them different files; run on equal "
                "machines, or with base_model.processes=1"
            )


ALONE = Ranks()


def shares(plan: Sequence[Sequence[int]], count: int) -> list[list[list[int]]]:
    """Shares of the rows: for each step, for each of `count` processes, places in that step's batch.

    The shares of a step are even, and a row stays, if there is room, with the process that read it before: that one has
    its trunk state.
    """
    home: dict[int, int] = {}
    out: list[list[list[int]]] = []
    for batch in plan:
        room = -(-len(batch) // count)
        parts: list[list[int]] = [[] for _ in range(count)]
        rest = []
        for place, row in enumerate(batch):
            if row in home and len(parts[home[row]]) < room:
                parts[home[row]].append(place)
            else:
                rest.append(place)
        for place in rest:
            least = min(range(count), key=lambda number: (len(parts[number]), number))
            parts[least].append(place)
            home.setdefault(batch[place], least)
        out.append([sorted(part) for part in parts])
    return out
