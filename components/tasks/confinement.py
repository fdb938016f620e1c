"""Confinement of this process, for good: it gives up memory, time, network, other processes and files it doesn't need.

On Linux: resource limits, `no_new_privs`, a seccomp filter and Landlock, which need no privileges and bind all code
that runs afterwards, native code included. Elsewhere: resource limits alone. On every system an audit hook refuses
sockets and processes to Python's own functions.
"""

import ctypes
import os
import platform
import resource
import signal
import stat
import struct
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MB = 1024 * 1024
DESCRIPTORS = 64
"""Most open files."""

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF operations
_ALLOW, _ERRNO, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050000, 1, 38
_CLONE_THREAD = 0x00010000
_CALLS = {  # system call: its number on x86_64 and on aarch64, None where there is none
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "sendto": (44, 206), "bind": (49, 200),
    "listen": (50, 201), "socketpair": (53, 199), "fork": (57, None), "vfork": (58, None), "execve": (59, 221),
    "execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "io_uring_setup": (425, 425), "shmget": (29, 194),
    "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "open_by_handle_at": (304, 265), "init_module": (175, 105),
    "finit_module": (313, 273), "kexec_load": (246, 104),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}
"""Column of `_CALLS`, the kernel's name of the architecture, and the number of `clone`."""
_CLONE3 = 435

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILE_RIGHTS = 1 << 0 | 1 << 1 | _READ_FILE | 1 << 14 | 1 << 15
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_CREATE_RIGHTS = 1 << 1 | _READ_FILE | _READ_FOLDER | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14
"""Write, read, list, remove, make files and folders, truncate: no links, devices or sockets."""


def confine(
    *, memory_mb: int, seconds: int, file_bytes: int, readable: Sequence[Path], writable: Sequence[Path]
) -> list[str]:
    """Give up everything but reading below `readable` and the libraries, and writing below `writable`.

    `memory_mb` comes on top of what the process already has. Returns the names of the limits in force.
    """
    names = ["limits"]
    _limit(memory_mb, seconds, file_bytes)
    sys.addaudithook(_refuse)
    if sys.platform != "linux":
        return names
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return names
    if (abi := _landlock(libc, readable, writable)) > 0:
        names.append(f"landlock {abi}")
    if _seccomp(libc):
        names.append("seccomp")
    return names


def libraries() -> list[Path]:
    """Folders that Python and its libraries are loaded from."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages", "lib-dynload")]
    own = str(Path(__file__).parents[1])
    folders = [own, *paths, f"{sys.base_prefix}/lib", f"{sys.prefix}/lib", "/usr/lib", "/usr/lib64", "/lib", "/lib64"]
    return [path for name in dict.fromkeys(folders) if name and (path := Path(name)).is_dir()]


def _limit(memory_mb: int, seconds: int, file_bytes: int) -> None:
    limits = {
        "RLIMIT_AS": (_present_bytes() + memory_mb * MB,) * 2,
        "RLIMIT_CPU": (seconds, seconds + 5),  # a signal that has a name, then the end
        "RLIMIT_FSIZE": (file_bytes,) * 2,
        "RLIMIT_NOFILE": (DESCRIPTORS,) * 2,
        "RLIMIT_NPROC": (0, 0),
        "RLIMIT_CORE": (0, 0),
    }
    for name, pair in limits.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        most = [value if hard == resource.RLIM_INFINITY else min(value, hard) for value in pair]
        with suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (most[0], most[1]))


def _present_bytes() -> int:
    """Address space in use now: libraries map far more than they use, so a limit must start from here."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 1024 * MB


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Refuse sockets, other processes and every other call that a reader of files doesn't need; False if impossible."""
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.maxsize < 2**32:
        return False
    column, architecture, clone = machine
    refuse = (_RETURN, 0, 0, _ERRNO | _EPERM)
    lines = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, architecture),
        refuse,
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, 0, 1, 0x40000000),  # x32
        refuse,
        (_EQUAL, 0, 1, _CLONE3),  # its flags lie behind a pointer; C libraries fall back to `clone` on ENOSYS
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for both in _CALLS.values():
        if (number := both[column]) is not None:
            lines += [(_EQUAL, 0, 1, number), refuse]
    lines += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),  # the flags of `clone`
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        refuse,
        (_RETURN, 0, 0, _ALLOW),
    ]
    content = b"".join(struct.pack("=HBBI", *line) for line in lines)
    code = ctypes.create_string_buffer(content, len(content))
    program = _Program(len(lines), ctypes.addressof(code))
    return bool(libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0) == 0)


def _landlock(libc: ctypes.CDLL, readable: Sequence[Path], writable: Sequence[Path]) -> int:
    """Leave only these paths readable and writable; returns the version of Landlock in the kernel, or 0."""
    abi = int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    if abi < 1:
        return 0
    rights = _RIGHTS_BY_ABI[max(version for version in _RIGHTS_BY_ABI if version <= abi)]
    attributes = struct.pack("=Q", rights)
    attributes += struct.pack("=Q", 3) if abi >= 4 else b""  # TCP: nothing may be bound or connected
    attributes += struct.pack("=Q", 3) if abi >= 6 else b""  # signals and abstract sockets of others
    rules = int(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if rules < 0:
        return 0
    try:
        for paths, access in ((readable, _READ_FILE | _READ_FOLDER), (writable, _CREATE_RIGHTS)):
            for path in paths:
                _allow(libc, rules, path, access & rights)
        return abi if libc.syscall(_RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, access: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # a missing path can't be read either; the code that reads it reports that
        return
    try:
        access = access if stat.S_ISDIR(os.fstat(handle).st_mode) else access & _FILE_RIGHTS
        libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", access, handle), 0)
    finally:
        os.close(handle)


def _refuse(event: str, _: object) -> None:
    """Audit hook. Only Python's own functions call it, so it is no barrier to native code."""
    if event.startswith(_BARRED):
        raise PermissionError(f"{event} is not for a process that reads files from outside")


_BARRED = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "pty.")
