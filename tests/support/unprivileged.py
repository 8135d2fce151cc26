"""Running a process as an ordinary user although the tests run as root."""

import ctypes
import os

#: The user and group that own nothing.
NOBODY = 65534

_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 47, 2
_CAP_DAC_READ_SEARCH = 2
_VERSION_3 = 0x20080522


def become_ordinary_user() -> None:
    """For ``preexec_fn``: nobody's rights from here on; without root's rights to begin with nothing changes.

    One right stays where the system grants it: to read and enter everything, since interpreter and sources may lie
    below directories that only root may enter.  Nothing can be written, replaced or deleted that nobody may not.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    bit = 1 << _CAP_DAC_READ_SEARCH
    libc.capset(header, (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0))
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0)


def give_to_ordinary_user(path: str | os.PathLike[str]) -> None:
    """Makes ``path`` belong to the user that :func:`become_ordinary_user` becomes."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
