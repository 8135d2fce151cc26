"""``--since SERIAL|DATE``, as several commands take it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class Since(_ParamType):
    """A serial, or a date and time in UTC: ``("serial", number)`` or ``("time", seconds since the epoch)``."""

    name = "SERIAL|DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        import datetime as dt

        text = str(value).strip()
        if re.fullmatch(r"\d{1,18}", text):
            return ("serial", int(text))
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither a serial nor a date like 2026-01-31 or 2026-01-31T12:00:00Z", param, ctx)
        return ("time", (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())
