"""Values of options that several commands take, or that need more than a word to be explained."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import datetime as dt
    from fractions import Fraction

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType


class Since(ParamType):
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


class Size(ParamType):
    """Bytes, from a number or a size like ``64MiB``."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from heliostat.config.problems import Problem
        from heliostat.config.values import size

        text = str(value).strip()
        try:
            return int(size(1)(int(text) if text.isascii() and text.isdigit() else text, {}))
        except Problem as problem:
            self.fail(str(problem), param, ctx)


class Sample(ParamType):
    """So many of something, or a share of it: ``("most", number)`` or ``("share", fraction)``."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)\s*(%?)", str(value).strip())
        if not found or ("." in found[1] and not found[2]):
            self.fail(f"{value!r} is neither a number of files nor a share like 5%", param, ctx)
        number = float(found[1])
        if found[2] and number > 100:
            self.fail("a share is at most 100%", param, ctx)
        return ("share", number / 100) if found[2] else ("most", number)


class Digests(Sample):
    """The same, or ``all``."""

    name = "N|P%|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        return ("share", 1.0) if str(value).strip() == "all" else super().convert(value, param, ctx)


class Share(ParamType):
    """A share of more than nothing."""

    name = "P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        from fractions import Fraction

        if isinstance(value, Fraction):
            return value
        found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", str(value).strip(), re.ASCII)
        if not found or not 0 < Fraction(found[1]) <= 100:
            self.fail(f"{value!r} is no share like 99% or 99.5%, of at most 100%", param, ctx)
        return Fraction(found[1]) / 100


class Date(ParamType):
    """A day."""

    name = "DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.date:
        import datetime as dt

        try:
            return dt.date.fromisoformat(str(value).strip())
        except ValueError:
            self.fail(f"{value!r} is no date like 2026-01-31", param, ctx)
