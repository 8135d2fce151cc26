"""In which form log lines and messages leave the process; light enough for every command line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

FORMATS = ("auto", "text", "journal", "json")

#: What stands before the host of a URL.
_CREDENTIALS = re.compile(r"://[^\s/?#]*@")


def resolve(wanted: str | None, environ: Mapping[str, str]) -> str:
    """``text``, ``journal`` or ``json`` for one of FORMATS: ``auto`` asks where standard error leads to."""
    if wanted and wanted != "auto":
        return wanted
    return "journal" if leads_to_journal(environ) else "text"


def leads_to_journal(environ: Mapping[str, str]) -> bool:
    """Whether standard error is the stream that systemd made for the journal, and names in JOURNAL_STREAM."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))


def without_secrets(text: str) -> str:
    """``text`` with no credentials in its URLs: the last line of defence, whoever wrote the message."""
    return _CREDENTIALS.sub("://", text) if "@" in text else text


def in_journal(priority: int, text: str) -> str:
    """``text`` with syslog's ``priority`` before every line, as sd-daemon(3) has it: each becomes an entry."""
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines() or [""])
