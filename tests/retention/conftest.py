"""Fixtures of the retention tests."""

from small_loop import champion, fresh, learnt, pending

__all__ = ["champion", "fresh", "learnt", "pending"]
