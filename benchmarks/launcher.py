"""Runs one command and reports what it took; a small process, since a child starts with its parent's peak size.

    python -I -S launcher.py REPORT COMMAND...

The file REPORT gets two lines: the process id at once, and at the end seconds, CPU seconds, kernel CPU seconds, peak
KiB and exit code.
"""

import os
import sys
import time

with open(sys.argv[1], "w", encoding="ascii") as report:
    started = time.perf_counter()
    pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    report.write(f"{pid}\n")
    report.flush()
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    report.write(f"{wall} {usage.ru_utime} {usage.ru_stime} {usage.ru_maxrss} {code}\n")
