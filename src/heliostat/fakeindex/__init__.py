"""A small but real package index, for demonstrations, tests and benchmarks.

    index = Index()
    index.publish("demo", "1.0", UploadedFile(*wheel("demo", "1.0")[:2]))
    async with FakeIndex(index) as server:
        ...  # pip download --index-url {server.url}/simple/ demo

It speaks what the public index speaks (Simple API, JSON documents, XML-RPC change feed, files with ranges), never
leaves loopback, keeps everything in memory, and fails on demand (:mod:`heliostat.fakeindex.faults`).
"""

from heliostat.fakeindex.content import Content, Literal, Virtual, made_up_digests
from heliostat.fakeindex.index import Expected, Index
from heliostat.fakeindex.options import Options
from heliostat.fakeindex.project import Project, Release, UploadedFile
from heliostat.fakeindex.server import FakeIndex

__all__ = [
    "Content",
    "Expected",
    "FakeIndex",
    "Index",
    "Literal",
    "Options",
    "Project",
    "Release",
    "UploadedFile",
    "Virtual",
    "made_up_digests",
]
