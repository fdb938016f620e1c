"""Fixtures of the service's tests."""

from small_loop import champion, fresh, learnt, pending
from small_service import serve

__all__ = ["champion", "fresh", "learnt", "pending", "serve"]
