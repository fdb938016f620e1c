"""With this folder on PYTHONPATH a Python has no torch nor what comes with it, as in the image `lcia-runtime`."""

import runpy
import sys
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from pathlib import Path

_image = runpy.run_path(str(Path(__file__).parents[3] / "infra" / "images" / "requirements.py"))
_discover = Distribution.discover


class WithoutTorch(PathFinder):
    """Finds every other module."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if _absent(fullname.partition(".")[0]) else super().find_spec(fullname, path, target)


def _absent(name):
    return _image["plain"](name) in _image["TORCH"]


def _others(**wanted):
    return (found for found in _discover(**wanted) if not _absent(found.name))


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch
Distribution.discover = _others
