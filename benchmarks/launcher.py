"""Runs one command and reports what it took; a small process, since a child starts with its parent's peak size.

    python -I -S launcher.py REPORT COMMAND...

The file REPORT gets two lines: the process id at once, and at the end seconds, CPU seconds, kernel CPU seconds, peak
KiB and exit code.  The peak is the sum of the peaks of all processes that the command consisted of, as far as they
lived for a tenth of a second.
"""

import os
import sys
import threading
import time


def watch(pid: str, peaks: dict[str, int], ended: threading.Event) -> None:
    """Note the peaks (KiB) of a process and its children by their ids, until it has ended."""
    while not ended.wait(0.1):
        found = [pid]
        for process in found:
            try:
                for task in os.listdir(f"/proc/{process}/task"):
                    with open(f"/proc/{process}/task/{task}/children", encoding="ascii") as children:
                        found += children.read().split()
                with open(f"/proc/{process}/status", encoding="utf-8", errors="replace") as status:
                    peak = next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)
                peaks[process] = max(peak, peaks.get(process, 0))  # it is no more told of one that has ended
            except OSError:  # it has just ended
                continue


with open(sys.argv[1], "w", encoding="ascii") as report:
    started = time.perf_counter()
    pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    report.write(f"{pid}\n")
    report.flush()
    peaks: dict[str, int] = {}
    ended = threading.Event()
    watching = threading.Thread(target=watch, args=(str(pid), peaks, ended))
    watching.start()
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    ended.set()
    watching.join()
    code = os.waitstatus_to_exitcode(status)
    others = sum(peak for process, peak in peaks.items() if process != str(pid))
    report.write(
        f"{wall} {usage.ru_utime} {usage.ru_stime} {max(usage.ru_maxrss, peaks.get(str(pid), 0) + others)} {code}\n"
    )
