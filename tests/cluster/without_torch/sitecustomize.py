"""With this folder on PYTHONPATH a Python has no torch nor what comes with it, as in the image `lcia-runtime`."""

import runpy
import sys
from importlib.machinery import PathFinder
from pathlib import Path

_image = runpy.run_path(str(Path(__file__).parents[3] / "infra" / "images" / "requirements.py"))


class WithoutTorch(PathFinder):
    """Finds everything else, modules and distributions."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if _absent(fullname.partition(".")[0]) else super().find_spec(fullname, path, target)

    @classmethod
    def find_distributions(cls, *context):
        return [found for found in super().find_distributions(*context) if not _absent(found.name)]


def _absent(name):
    return _image["plain"](name) in _image["TORCH"]


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch
