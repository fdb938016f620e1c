"""The fence: nothing is written or deleted outside a root that the settings name, with every link followed.

MLflow and ZenML remember absolute paths. In a copied or moved state these still lead to the other state. So a path on
record is never enough to write or delete there: it has to lie below the root of this installation.
"""

import os
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from components.errors import LciaError


class OutsideRoot(LciaError):
    """A path or URL outside its root, once links are followed."""


class NotErased(LciaError):
    """A file or folder is still there after its deletion."""


def local_path(location: str) -> Path | None:
    """The local file or folder that a path or a `file:` URL names; None for any other URL."""
    parts = urlparse(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in location or location.startswith("mlflow-artifacts:") else Path(location)


def lies_below(location: str, root: str) -> bool:
    """True if a path or URL is the root or below it; local links are followed first."""
    here, top = local_path(location), local_path(root)
    if here is not None and top is not None:
        real, real_top = here.resolve(), top.resolve()
        return real == real_top or real_top in real.parents
    if here is not None or top is not None:
        return False
    below, above = urlparse(location), urlparse(root)
    parts, first = PurePosixPath(below.path).parts, PurePosixPath(above.path).parts
    same_host = (below.scheme, below.netloc) == (above.scheme, above.netloc)
    return same_host and ".." not in parts and parts[: len(first)] == first


def need_below(location: str, root: str, what: str, advice: str) -> None:
    """Refuse a path or URL outside a root.

    Raises:
        OutsideRoot: it is outside; the message begins with `what`, whose location it is, and ends with `advice`.
    """
    if not lies_below(location, root):
        raise OutsideRoot(f"{what} at {location}, outside {root}: nothing is written or deleted there. {advice}")


def stray(root: str, home: Path) -> Path | None:
    """Real path of a root in the state folder that a link leads out of it; None for any other root.

    `cp -a` keeps such a link, so two states would share the files, and one would delete the other's. A root that the
    settings place outside the state folder may be anywhere.
    """
    top = local_path(root)
    if top is None or not Path(os.path.abspath(top)).is_relative_to(os.path.abspath(home)):  # noqa: PTH100 - `..`
        return None
    real = Path(os.path.realpath(top))  # unlike Path.resolve, it doesn't fail on a circle of links
    return None if real.is_relative_to(os.path.realpath(home)) else real


def need_inside(root: str, home: Path, key: str) -> None:
    """Refuse a root that a link leads out of the state folder; see `stray`.

    Raises:
        OutsideRoot: the message names the setting `key` for that path; `key` is '' if there is none.
    """
    real = stray(root, home)
    if real is not None:
        name = f"set {key} to {real} (a copy of the state: to a folder of its own), or " if key else ""
        raise OutsideRoot(
            f"{local_path(root)} is a link to {real}, outside the state folder {home}: another state may keep its "
            f"files there, so nothing is written or deleted there. To go on {name}move the folder itself to where the "
            "link is"
        )


def erase(path: Path, root: Path) -> None:
    """Delete a file or folder below `root`, if it exists; a link is removed, never followed.

    Raises:
        OutsideRoot: its folder is not below `root`, or it is the root itself.
        NotErased: it is still there.
    """
    folder, top = path.parent.resolve(), root.resolve()
    if folder != top and top not in folder.parents:
        raise OutsideRoot(f"{path} leads to {folder}, outside {root}; it was not deleted. Look who put a link there")
    target = folder / path.name
    try:
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.exists():
            shutil.rmtree(target)
    except OSError as error:
        raise NotErased(f"{path} can't be deleted ({error.strerror}); it is still there") from error
    if target.is_symlink() or target.exists():
        raise NotErased(f"{path} is still there after it was deleted; somebody writes it again")
