"""The store against what pages claim: sorted claims, cut into stretches that threads compare with the tree.

A stretch is so many claims, and the part of the tree that they lie in; a thread walks that part and merges both.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from heliostat.errors import Invalid
from heliostat.mirror.verify.findings import Finding, Kind, finding
from heliostat.mirror.verify.folders import Walk, is_for_directory, is_for_file
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.reading import Odd, kind_of
from heliostat.model import DistFile

#: Where files lie, in byte order.
FOLDERS = (b"integrity/", b"packages/")
#: A stretch ends behind so many claims, or claimed bytes.
_CLAIMS, _BYTES = 512, 32 << 20
_MAX_PROOF = 16 << 20


class Stretch(NamedTuple):
    """Claims (lines, see :mod:`.judge`), and the bounds of the paths that belong to them."""

    low: bytes
    high: bytes | None
    claims: list[bytes]
    #: So many of the lines before it were in earlier stretches.
    before: int


class Seen(msgspec.Struct):
    """What one stretch brought."""

    findings: list[Finding] = []
    files: int = 0
    hashed: int = 0


class Sample:
    """Which files are hashed: all, a share of them, or exactly so many; the same ones again when a run is resumed."""

    def __init__(self, *, share: float | None = None, most: int | None = None, seed: int = 0) -> None:
        self._most, self._key = most, seed.to_bytes(8, "big")
        self._below: int | None = None if share is None else int(share * 2**64)

    def draw(self, claims: Iterable[bytes]) -> None:
        """Draw a number of files; one look at all the claims, in memory for as many as are drawn."""
        if self._most is not None:
            paths = (path for path, lines in by_path(claims) if any(b"\tmaybe\t" not in line for line in lines))
            drawn = heapq.nsmallest(self._most + 1, map(self._number, paths))
            self._below = drawn[self._most] if len(drawn) > self._most else None

    def takes(self, path: bytes) -> bool:
        return self._below is None or self._number(path) < self._below

    def _number(self, path: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(path, digest_size=8, key=self._key).digest(), "big")


def stretches(claims: Iterable[bytes], *, after: bytes = b"") -> Iterator[Stretch]:
    """Cut sorted claims; ``after`` is the bound up to which all is done."""
    held: list[bytes] = []
    low, size, seen, before = after, 0, 0, 0
    last = b""
    for line in claims:
        seen += 1
        path, _, rest = line.partition(b"\t")
        if after and path < after:
            before = seen
            continue
        place = _place(path)
        if place != last and (len(held) >= _CLAIMS or size >= _BYTES):
            yield Stretch(low, place, held, before)
            low, held, size, before = place, [], 0, seen - 1
        last = place
        held.append(line)
        size += int(rest.split(b"\t", 2)[1] or 0)
    yield Stretch(low, None, held, before)


def _place(path: bytes) -> bytes:
    """The directory that stretches are cut at: ``packages/aa/bb/`` or ``integrity/NAME/``."""
    end = 15 if path.startswith(b"packages/") else path.find(b"/", 10) + 1
    return path[:end]


class Shelves:
    """Compares stretches with one tree; any thread."""

    def __init__(self, ground: Ground, scratch: str, *, quick: bool, whole: bool, sample: Sample) -> None:
        """``whole``: what is claimed by nothing is found too, otherwise only the claims are looked at."""
        self._ground, self._scratch = ground, scratch
        self._quick, self._whole, self._sample = quick, whole, sample
        self._directory_mode = ground.reader.mode | (ground.reader.mode >> 2)

    def compare(self, stretch: Stretch) -> Seen:
        """Everything in the stretch.  Raises Stopping."""
        seen = Seen(findings=[])
        if self._whole:
            self._merge(stretch, seen)
        else:
            for path, claims in by_path(stretch.claims):
                self.check(path, claims, seen)
        return seen

    def _merge(self, stretch: Stretch, seen: Seen) -> None:
        walk = Walk(
            self._ground.reader.root, self._scratch, f"walk-{stretch.low.hex()[:60]}",
            low=stretch.low, high=stretch.high, mode=self._directory_mode,
        )  # fmt: skip
        there = (path for folder in FOLDERS for path in walk.below(folder))
        path = next(there, None)
        for claimed, claims in by_path(stretch.claims):
            while path is not None and path < claimed:
                self._unreferenced(path, seen)
                path = next(there, None)
            if path == claimed:
                path = next(there, None)
            self.check(claimed, claims, seen)
        while path is not None:
            self._unreferenced(path, seen)
            path = next(there, None)
        seen.findings += (finding("unreadable", b"web/" + one, "", problem) for one, problem in walk.wrong)

    def _unreferenced(self, path: bytes, seen: Seen) -> None:
        reader = self._ground.reader
        reader.budget.take(0)
        stamp = reader.stamp(path)
        file = is_for_file(path)
        if stamp is not None and (is_for_directory(path) or (file and not stat.S_ISREG(stamp.mode))):
            problem = f"{kind_of(stamp.mode)}, where a {'file' if file else 'directory'} belongs"
            seen.findings.append(finding("obstacle", b"web/" + path, "", problem))
        elif os.path.islink(reader.root + path) and os.path.isdir(reader.root + path):
            seen.findings.append(finding("obstacle", b"web/" + path, "", "a symbolic link to a directory"))
        else:
            seen.findings.append(finding("unreferenced", b"web/" + path, "", "no page or document names it"))

    def check(self, path: bytes, claims: list[bytes], seen: Seen) -> None:
        """One path, and what is claimed of it.  Raises Stopping."""
        wanted = [line.split(b"\t") for line in claims]
        must = [one for one in wanted if one[1] != b"maybe"]
        if not must:
            return
        seen.files += 1
        reader = self._ground.reader
        try:
            handle, found = reader.open(path)
        except FileNotFoundError:
            self._say("missing", path, must, "not there", seen)
            return
        except Odd as odd:
            self._say(odd.kind, path, must, odd.problem, seen)
            return
        try:
            wrong = [one for one in must if one[2] and int(one[2]) != found.st_size]
            if wrong:
                self._say("size", path, wrong, f"{found.st_size} bytes, where {int(wrong[0][2])} are right", seen)
            elif not self._quick and self._sample.takes(path):
                self._digest(handle, found.st_size, path, must, seen)
        except Odd as odd:
            self._say(odd.kind, path, must, odd.problem, seen)
        finally:
            os.close(handle)

    def _digest(self, handle: int, size: int, path: bytes, must: list[list[bytes]], seen: Seen) -> None:
        proofs = [one for one in must if one[1] == b"proof"]
        if proofs:
            self._proof(handle, size, path, proofs, seen)
            return
        algorithms = {one[3].decode() for one in must if one[3]}
        if not algorithms:
            return
        seen.hashed += 1
        digests = self._ground.reader.digests(handle, size, tuple(sorted(algorithms)))
        wrong = [one for one in must if one[3] and digests[one[3].decode()] != one[4].decode()]
        if wrong:
            algorithm = wrong[0][3].decode()
            problem = f"its {algorithm} is {digests[algorithm]}, where {wrong[0][4].decode()} is right"
            self._say("digest", path, wrong, problem, seen)

    def _proof(self, handle: int, size: int, path: bytes, claims: list[list[bytes]], seen: Seen) -> None:
        from heliostat.mirror.provenance import check_provenance  # which brings all of HTTP with it

        seen.hashed += 1
        self._ground.reader.budget.take(size)
        body = os.read(handle, min(size, _MAX_PROOF) + 1)
        for one in claims:
            if one[3] != b"sha256":
                continue
            file = DistFile(filename=path.split(b"/")[-2].decode(), url="", hashes={"sha256": one[4].decode()})
            try:
                check_provenance(body, "", file)
            except Invalid as error:
                self._say("provenance", path, [one], error.reason, seen)

    @staticmethod
    def _say(kind: Kind, path: bytes, claims: list[list[bytes]], problem: str, seen: Seen) -> None:
        for project in sorted({one[5].decode() for one in claims}):
            seen.findings.append(finding(kind, b"web/" + path, project, problem))


def by_path(lines: Iterable[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Sorted claims, those of one path together."""
    current, held = b"", list[bytes]()
    for line in lines:
        path = line[: line.index(b"\t")]
        if path != current:
            if held:
                yield current, held
            current, held = path, []
        held.append(line)
    if held:
        yield current, held
