"""The small loop for what is signed of real promotions."""

from small_loop import champion, learnt, pending

__all__ = ["champion", "learnt", "pending"]
