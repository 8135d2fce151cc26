"""The figures after a single pass, in a file that node_exporter's textfile collector reads."""

from __future__ import annotations

import logging
import os

from heliostat.config import Config
from heliostat.errors import StateError, StoreError
from heliostat.mirror.figures import disk_figures, read_figures
from heliostat.mirror.report import Summary
from heliostat.service.figures import Figures
from heliostat.service.health import Result

log = logging.getLogger(__name__)

#: node_exporter runs as somebody else.
_MODE = 0o644


def write_textfile(path: str, config: Config, last: Summary | None, result: Result) -> None:
    """Replace the file at ``path`` by one with the figures as they are now; a failure is logged, and harms nothing.

    ``last`` is None for a pass that an error ended.
    """
    from heliostat.service.metrics import render_text

    try:
        ledger = read_figures(config)
    except (StateError, StoreError) as error:
        log.warning("%s: without the ledger's figures: %s", path, error)
        ledger = None
    # node_exporter reads names that end in .prom only.
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        disk = disk_figures(config.mirror.directory)
        body = render_text(Figures(config=config, ledger=ledger, disk=disk, last=last, result=result))
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            os.fchmod(file.fileno(), _MODE)  # whatever the umask
        os.replace(temporary, path)
    except OSError as error:
        log.error("cannot write the text file %s: %s", path, error.strerror or error)
        try:
            os.unlink(temporary)
        except OSError:
            pass
