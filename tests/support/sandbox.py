"""What a unit's seccomp settings do, done as systemd does it: with libseccomp, and systemd's own lists of calls."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import resource
import socket
from collections.abc import Callable

from support.supervisor import Unit, analyze

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _GREATER, _MASKED_EQUAL = 4, 6, 7
_PROT_WRITE, _PROT_EXEC, _SHM_EXEC = 2, 4, 0o100000
_PR_SET_NO_NEW_PRIVS = 38


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def confined(unit: Unit) -> Callable[[], None]:
    """For a child before it becomes the program: the unit's umask, limits, and filters of system calls."""
    allowed = allowed_calls(unit.all("SystemCallFilter"))
    families = {getattr(socket, name) for name in unit.one("RestrictAddressFamilies").split()}
    umask, limits = int(unit.one("UMask"), 8), (int(unit.one("LimitNOFILE")), int(unit.one("LimitCORE")))
    assert unit.one("NoNewPrivileges") == unit.one("MemoryDenyWriteExecute") == "yes"
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    filters = [_no_new_code(library), _families(library, families), _calls(library, allowed)]

    def confine() -> None:
        os.umask(umask)
        for kind, wanted in zip((resource.RLIMIT_NOFILE, resource.RLIMIT_CORE), limits, strict=True):
            hard = resource.getrlimit(kind)[1]  # which not even root may raise everywhere
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (limit, limit))
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for one in filters:
            if library.seccomp_load(ctypes.c_void_p(one)):
                os._exit(99)

    return confine


def allowed_calls(lines: list[str]) -> set[str]:
    """What SystemCallFilter= lines leave: names added, and with ~ taken away again, in their order."""
    allowed: set[str] = set()
    for line in lines:
        names = {call for word in line.removeprefix("~").split() for call in _group(word)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


@functools.cache
def _group(word: str) -> frozenset[str]:
    if not word.startswith("@"):
        return frozenset([word])
    shown = analyze("syscall-filter", word)
    assert shown.returncode == 0, shown.stderr
    members = [line.strip() for line in shown.stdout.splitlines()[1:]]
    return frozenset(call for one in members if one and not one.startswith("#") for call in _group(one))


def _calls(library: ctypes.CDLL, allowed: set[str]) -> int:
    made = library.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM))
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # others are not of this machine
            assert library.seccomp_rule_add(ctypes.c_void_p(made), ctypes.c_uint32(_ALLOW), number, 0) == 0, name
    return int(made)


def _no_new_code(library: ctypes.CDLL) -> int:
    """MemoryDenyWriteExecute=: no memory that is written and run."""
    made = library.seccomp_init(ctypes.c_uint32(_ALLOW))
    both = _PROT_WRITE | _PROT_EXEC
    _refuse(library, made, "mmap", errno.EPERM, _Compare(2, _MASKED_EQUAL, both, both))
    _refuse(library, made, "mprotect", errno.EPERM, _Compare(2, _MASKED_EQUAL, _PROT_EXEC, _PROT_EXEC))
    _refuse(library, made, "pkey_mprotect", errno.EPERM, _Compare(2, _MASKED_EQUAL, _PROT_EXEC, _PROT_EXEC))
    _refuse(library, made, "shmat", errno.EPERM, _Compare(2, _MASKED_EQUAL, _SHM_EXEC, _SHM_EXEC))
    return int(made)


def _families(library: ctypes.CDLL, families: set[int]) -> int:
    made = library.seccomp_init(ctypes.c_uint32(_ALLOW))
    for family in set(range(64)) - families:
        _refuse(library, made, "socket", errno.EAFNOSUPPORT, _Compare(0, _EQUAL, family, 0))
    _refuse(library, made, "socket", errno.EAFNOSUPPORT, _Compare(0, _GREATER, 63, 0))
    return int(made)


def _refuse(library: ctypes.CDLL, made: int, name: str, number: int, compare: _Compare) -> None:
    call = library.seccomp_syscall_resolve_name(name.encode())
    action = ctypes.c_uint32(_ERRNO | number)
    added = library.seccomp_rule_add_array(ctypes.c_void_p(made), action, call, 1, ctypes.byref(compare))
    assert added == 0, name
