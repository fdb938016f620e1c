"""Fixtures of the kill tests."""

from small_loop import champion, fresh, learnt, pending

__all__ = ["champion", "fresh", "learnt", "pending"]
