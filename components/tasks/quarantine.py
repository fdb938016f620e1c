"""The quarantine: reports on refused packages, each under the digest of the package's raw files.

Submitting the same bytes twice gives the same digest, and the same report. The package itself is only read.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from components.storage.objects import canonical, digest_of, write_durably
from components.tasks.package import list_files
from components.tasks.problems import MAX_FILE_BYTES, PackageError, Problem, digest_regular, printable

_DIGEST = re.compile(r"[0-9a-f]{64}")


def package_digest(path: Path | str) -> str:
    """Digest of a package's raw files, under which it is stored.

    Raises:
        PackageError: no folder, links, special files, names that leave the folder, or too large.
    """
    files: dict[str, str] = {}
    names, problems = list_files(Path(path))
    for name in names if not problems else []:
        digest = digest_regular(Path(path) / name, name, MAX_FILE_BYTES)
        if isinstance(digest, Problem):
            problems.append(digest)
        else:
            files[name] = digest
    if problems:
        raise PackageError(str(path), problems)
    return digest_of(folder_object(files))


def quarantine(home: Path, package: Path | str, problems: list[Problem]) -> Path:
    """Write the reasons of a refusal to `home/quarantine/<digest>/report.{json,txt}`; returns that folder.

    `package` is a path or a digest; a path without a digest (a link, say) goes by the sha256 of its name. Repeating it
    writes the same bytes.
    """
    name = str(package)
    folder = home / "quarantine" / _folder_name(package)
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "kind": "refusal",
        "package": printable(name),
        "problems": [asdict(problem) for problem in problems],
    }
    write_durably(folder / "report.json", canonical(report) + b"\n")
    write_durably(folder / "report.txt", f"{PackageError(name, problems)}\n".encode())
    return folder


def folder_object(files: Mapping[str, str]) -> bytes:
    """The folder object: names of a package's raw files, with their digests."""
    return canonical({"kind": "folder", "files": dict(files)})


def _folder_name(package: Path | str) -> str:
    if isinstance(package, Path) and package.is_file() and not package.is_symlink():
        digest = digest_regular(package, package.name, MAX_FILE_BYTES)
        if isinstance(digest, str):
            return digest
    if isinstance(package, str) and _DIGEST.fullmatch(package):
        return package
    try:
        return package_digest(package)
    except PackageError:
        return digest_of(str(package).encode("utf-8", "surrogateescape"))
