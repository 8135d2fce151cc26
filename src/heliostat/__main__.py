"""``python -m heliostat``."""

import sys

from heliostat.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
