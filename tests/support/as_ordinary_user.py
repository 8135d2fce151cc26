"""``python as_ordinary_user.py ARGUMENTS...``: the command line with the rights of a user who owns nothing.

Unlike :mod:`support.unprivileged` no right of root's is kept; so everything is imported before.  Without root's
rights to begin with it is the ordinary command line.
"""

import importlib
import os
import pkgutil
import sys

import heliostat
from heliostat.cli.main import main

NOBODY = 65534

if __name__ == "__main__":
    names = [module.name for module in pkgutil.walk_packages(heliostat.__path__, "heliostat.")]
    encodings = ("encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.unicode_escape")
    for name in [*names, *encodings, "difflib", "filelock", "pwd", "sqlite3", "traceback", "uvloop"]:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    sys.exit(main())
