"""A recording of a real index in miniature, in the layout that :mod:`heliostat.fakeindex.recorded` reads."""

from __future__ import annotations

import hashlib
import json
import os

from heliostat.fakeindex import Literal


def write_recording(folder: str) -> bytes:
    """A recording in miniature: one file with bytes, one without, and a page that knows more than the document."""
    data = b"the sdist's bytes"
    digests = Literal(data).digests
    entry = {"filename": "Rec-1.0.tar.gz", "path": "dists/Rec-1.0.tar.gz", "size": len(data), **digests._asdict()}
    file = {
        "filename": "Rec-1.0.tar.gz", "url": "https://files.invalid/packages/aa/bb/cc/Rec-1.0.tar.gz", "size": 5,
        "digests": digests._asdict(), "upload_time": "2020-01-02T03:04:05", "packagetype": "sdist",
        "python_version": "source", "yanked": True, "yanked_reason": "old",
    }  # fmt: skip
    other = dict(file, filename="Rec-2.0.zip", digests={"sha256": "ab" * 32}, size=77, yanked=False)
    document = {
        "info": {"name": "Rec", "version": "2.0", "summary": "s"},
        "last_serial": 7,
        "releases": {"0.1": [], "1.0": [file], "2.0": [other]},
    }
    page_file = {
        "filename": "Rec-2.1-py3-none-any.whl", "url": "https://files.invalid/x/Rec-2.1-py3-none-any.whl", "size": 9,
        "hashes": {"sha256": "cd" * 32}, "core-metadata": {"sha256": hashlib.sha256(b"META").hexdigest()},
        "provenance": "https://index.invalid/p",
    }  # fmt: skip
    page = {
        "files": [page_file],
        "meta": {"api-version": "1.4"},
        "name": "rec",
        "project-status": {"status": "archived"},
    }
    for path, body in {
        "dists/MANIFEST.json": json.dumps([entry]).encode(),
        "dists/Rec-1.0.tar.gz": data,
        "json/toolchain/rec.json": json.dumps(document).encode(),
        "simple-json/poetry/rec.json": json.dumps(page).encode(),
        "metadata/poetry/Rec-2.1-py3-none-any.whl.metadata": b"META",
    }.items():
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        with open(os.path.join(folder, path), "wb") as target:
            target.write(body)
    return data
