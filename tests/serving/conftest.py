"""Versions to hand over: the small loop's three promoted ones."""

from small_loop import champion, learnt

__all__ = ["champion", "learnt"]
