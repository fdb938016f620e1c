"""Memory of the device and of the process: an error where it does not suffice, and what was freed given back."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from components.errors import LciaError


class OutOfMemory(LciaError):
    """The device has not enough memory for what the settings ask for."""


def give_back() -> None:
    """Give freed memory back to the operating system, where the C library can (glibc); else do nothing.

    glibc keeps what lies below the last block in use: after the conversion of the embedded model 390 MB of 860.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def enough_memory(for_what: str, advice: str) -> Iterator[None]:
    """Within the block, or the function, a lack of device memory becomes an error that says what to change.

    Raises:
        OutOfMemory: there was not enough.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{_state()} ran out of memory {for_what}; {advice}") from error


def _state() -> str:
    if not torch.cuda.is_available():
        return "the device"
    free, total = torch.cuda.mem_get_info()
    own = torch.cuda.memory_allocated()
    return (
        f"{torch.cuda.get_device_name()} with {total / 2**30:.0f} GiB (free {free / 2**30:.1f}, used by this process "
        f"{own / 2**30:.1f})"
    )
