"""Fixtures of the tests on the double."""

from installation import site, zenml_server

__all__ = ["site", "zenml_server"]
