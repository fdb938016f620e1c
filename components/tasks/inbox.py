"""The inbox: a package as it came, stored whole under its own digest, and the report on a refused one.

What is stored is the raw package, before anything is parsed: the same bytes submitted twice are the same
digest, and a refusal can be looked into later. The original folder is only read.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from components.storage.objects import ObjectStore, canonical, digest_of, write_durably
from components.tasks.package import list_files
from components.tasks.problems import MAX_FILE_BYTES, PackageError, Problem, printable, read_regular

_DIGEST = re.compile(r"[0-9a-f]{64}")


def package_digest(path: Path | str) -> str:
    """Digest of a package's raw files, as `store_package` would name it.

    Raises:
        PackageError: no folder, links, special files, names that leave the folder, or too large.
    """
    return digest_of(folder_object({name: digest_of(content) for name, content in _contents(Path(path))}))


def store_package(path: Path | str, store: ObjectStore) -> str:
    """Store a package's raw files as a folder object and return its digest; errors as `package_digest`."""
    package_digest(path)  # so that nothing is stored of a package that can't be read to its end
    return store.put(folder_object({name: store.put(content) for name, content in _contents(Path(path))}))


def quarantine(home: Path, package: Path | str, problems: list[Problem]) -> Path:
    """Write why a package was refused to `home/quarantine/<digest>/report.{json,txt}`; returns that folder.

    `package` is its path or digest; a path that has no digest (a link, say) goes by the sha256 of its name.
    The package itself is not touched, and repeating it writes the same bytes.
    """
    name = str(package)
    folder = home / "quarantine" / _quarantine_name(package)
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "kind": "refusal",
        "package": printable(name),
        "problems": [asdict(problem) for problem in problems],
    }
    write_durably(folder / "report.json", canonical(report) + b"\n")
    write_durably(folder / "report.txt", f"{PackageError(name, problems)}\n".encode())
    return folder


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes, one file in memory at a time."""
    names, problems = list_files(path)
    for name in names if not problems else []:
        content = read_regular(path / name, name, MAX_FILE_BYTES)
        if isinstance(content, Problem):
            problems.append(content)
        else:
            yield name, content
    if problems:
        raise PackageError(str(path), problems)


def folder_object(files: Mapping[str, str]) -> bytes:
    """The object that names a package's raw files and their digests."""
    return canonical({"kind": "folder", "files": dict(files)})


def _quarantine_name(package: Path | str) -> str:
    if isinstance(package, Path) and package.is_file() and not package.is_symlink():
        content = read_regular(package, package.name, MAX_FILE_BYTES)
        if isinstance(content, bytes):
            return digest_of(content)
    if isinstance(package, str) and _DIGEST.fullmatch(package):
        return package
    try:
        return package_digest(package)
    except PackageError:
        return digest_of(str(package).encode("utf-8", "surrogateescape"))
