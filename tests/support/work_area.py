"""A work area for tests of resuming: it survives, the process that writes to it may not."""

from dataclasses import dataclass, field


class Killed(Exception):
    """Stands for the machine going away."""


@dataclass
class Memory:
    """Named bytes in memory; the write of number `fatal` raises instead."""

    files: dict[str, bytes] = field(default_factory=dict)
    fatal: int = 0
    writes: int = 0

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.writes += 1
        if self.writes == self.fatal:
            raise Killed
        self.files[name] = data
