"""Fixtures of the loop's tests."""

from small_loop import fresh, learnt

__all__ = ["fresh", "learnt"]
