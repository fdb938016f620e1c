"""Budgets for reading packages, data sets and images from outside."""

from typing import Annotated

from pydantic import Field

from components.settings.section import Section


class PackageSettings(Section):
    """Budgets of the process that reads a package; a package that needs more is refused. No version depends on them."""

    memory_mb: Annotated[int, Field(ge=256)] = 4096
    """Memory for a package, in MB, on top of the process's own."""
    seconds: Annotated[int, Field(ge=2)] = 900
    """Seconds of its processor time, and seconds that other processes wait for it."""
    megapixels: Annotated[int, Field(ge=1)] = 20_000
    """Pixels of all images of a package, in millions."""
    output_mb: Annotated[int, Field(ge=16)] = 16_384
    """Storage for a package, in MB: its files, its rows, and its images as they are stored."""
