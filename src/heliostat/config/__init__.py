"""The configuration: one frozen tree, made of TOML text by :mod:`heliostat.config.load`.

Below the command line nothing else carries settings: a part receives its own section, never the whole tree.
"""

from heliostat.config.problems import without_credentials
from heliostat.config.sections import (
    DEFAULT_FILE_HOSTS,
    DEFAULT_UPSTREAM,
    SECTIONS,
    Config,
    LoggingConfig,
    MirrorConfig,
    MirrorSite,
    PushConfig,
    RemovalConfig,
    ScrubConfig,
    ServiceConfig,
    StatsConfig,
    UpstreamConfig,
    keys,
)

__all__ = [
    "DEFAULT_FILE_HOSTS",
    "DEFAULT_UPSTREAM",
    "SECTIONS",
    "Config",
    "LoggingConfig",
    "MirrorConfig",
    "MirrorSite",
    "PushConfig",
    "RemovalConfig",
    "ScrubConfig",
    "ServiceConfig",
    "StatsConfig",
    "UpstreamConfig",
    "keys",
    "without_credentials",
]
