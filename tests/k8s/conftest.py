"""Fixtures of the manifests' tests."""

from small_loop import fresh
from small_service import serve

__all__ = ["fresh", "serve"]
