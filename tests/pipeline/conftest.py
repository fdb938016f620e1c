"""Fixtures of the loop's tests."""

from small_loop import champion, fresh, learnt

__all__ = ["champion", "fresh", "learnt"]
