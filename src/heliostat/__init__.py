"""heliostat: a mirror that follows a Python package index and always knows how complete its copy is."""

__version__ = "0.1.0"
