"""The annotated configuration that comes with the package (``configs/heliostat.toml`` in the sources)."""

from __future__ import annotations

import os

from heliostat.errors import ConfigError


def example_text() -> str:
    """The annotated example."""
    import importlib.resources

    return importlib.resources.files("heliostat.cli").joinpath("example.toml").read_text(encoding="utf-8")


def write_example(path: str, *, replace: bool = False) -> None:
    """Writes the annotated example to ``path``, with the directories above it.

    Raises ConfigError when that is not possible, or when ``path`` exists and is not to be replaced.
    """
    try:
        if os.path.lexists(path) and not replace:
            raise ConfigError([f"{path}: exists already; --force replaces it"])
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "w" if replace else "x", encoding="utf-8") as file:
            file.write(example_text())
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror}; name another path"]) from None
