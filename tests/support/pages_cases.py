"""Recorded answers where HELIOSTAT_FIXTURES points to them, and small look-alikes of every oddity in them.

``recorded(kind)`` and the ``LOOKALIKE_*`` tables are used together, so that a test has cases either way.
"""

import json
import os
from pathlib import Path
from typing import Any

SHA = "0123456789abcdef" * 4
SHA2 = "fedcba9876543210" * 4
MD5 = "0123456789abcdef" * 2
URL = "https://index.example/simple/example/"
STORE = f"https://files.example/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}"


def recorded(folder: str, suffix: str) -> list[Path]:
    """All recorded files of a folder below the fixtures, also when the variable names their parent folder."""
    root = os.environ.get("HELIOSTAT_FIXTURES")
    if not root:
        return []
    base = Path(root)
    base = base / "real" if (base / "real").is_dir() else base
    found = sorted((base / folder).rglob("*" + suffix))
    assert found, f"HELIOSTAT_FIXTURES is set, but holds no {folder}"
    return found


def case_id(path: Path) -> str:
    return "/".join(path.parts[-3:])


def page(*files: dict[str, Any], **more: Any) -> bytes:
    """A JSON page of project ``example``; None as a value leaves a key out."""
    raw: dict[str, Any] = {
        "name": "example",
        "files": list(files),
        "meta": {"api-version": "1.4", "_last-serial": 7},
        **more,
    }
    return json.dumps({key: value for key, value in raw.items() if value is not ...}).encode()


def entry(filename: str = "example-1.0.tar.gz", **more: Any) -> dict[str, Any]:
    """A file of a JSON page; keys as keyword arguments with ``_`` for ``-``, and ``...`` to leave one out."""
    raw: dict[str, Any] = {"filename": filename, "url": f"{STORE}/{filename}", "hashes": {"sha256": SHA}}
    raw |= {key.replace("_", "-"): value for key, value in more.items()}
    return {key: value for key, value in raw.items() if value is not ...}


#: What each recorded JSON page, or page of another mirror, is odd in.
LOOKALIKE_JSON = {
    "public index": page(
        entry(
            "example-1.0-py3-none-any.whl",
            core_metadata={"sha256": SHA2},
            data_dist_info_metadata={"sha256": SHA2},
            provenance="https://index.example/integrity/example/1.0/example-1.0-py3-none-any.whl/provenance",
            requires_python=">=3.8,<4",
            size=464992,
            upload_time="2023-01-28T10:52:52.445537Z",
            yanked=False,
        ),
        entry(
            core_metadata=False,
            data_dist_info_metadata=False,
            provenance=None,
            requires_python=None,
            size=1,
            upload_time="2007-05-04T03:02:01Z",
            yanked="broken & <bad> \"quotes\" 'too', snowman \u2603",
        ),
        versions=["1.0"],
        **{"project-status": {"status": "active"}},
    ),
    "without files, archived": page(
        **{"project-status": {"status": "archived"}, "alternate-locations": []}, versions=[]
    ),
    "quarantined, with a reason": page(
        **{"project-status": {"status": "quarantined", "reason": "malware <script>"}}, versions=[]
    ),
    "quarantined, but still listing files": page(entry(), **{"project-status": {"status": "quarantined"}}),
    "deprecated, PEP 708 keys": page(
        entry(),
        meta={"api-version": "1.2", "tracks": ["https://tracks.example/"]},
        **{
            "alternate-locations": ["https://alt.example/"],
            "project-status": {"status": "deprecated", "reason": "tired"},
        },
    ),
    "bandersnatch": page(
        entry(
            url="../../packages/aa/bb/cc/example-1.0.tar.gz", upload_time="", yanked=True, core_metadata=False, size=3
        ),
        meta={"api-version": "1.1", "_last-serial": "30000185"},
        versions=["1.0"],
    ),
    "an extra md5": page(entry(hashes={"md5": MD5, "sha256": SHA}, size=2)),
    "only the name before PEP 714": page(entry(dist_info_metadata={"sha256": SHA2})),
    "no hashes": page(entry(hashes=...)),
    "empty requires-python, yanked null": page(entry(requires_python="", yanked=None, size=None, upload_time=None)),
    "relative": page(entry(url="example-1.0.tar.gz"), meta={"api-version": "1.0"}),
    "names that break naive code": page(
        *(
            entry(filename, url=f"{STORE}/{quoted}")
            for filename, quoted in {
                "pyfurby-0.1 (1).tar.gz": "pyfurby-0.1%20(1).tar.gz",
                "scikit-highs-('0.6.0',).tar.gz": "scikit-highs-('0.6.0',).tar.gz",
                "x-1!3.1.0-py3-none-any.whl": "x-1!3.1.0-py3-none-any.whl",
                "x-1.0+cu118-py3-none-any.whl": "x-1.0+cu118-py3-none-any.whl",
                "mkey.zip": "mkey.zip",
                "100%-a#b?c&d;.tar.gz": "100%25-a%23b%3Fc&d%3B.tar.gz",
                "f\u00f6\u00f6-1.0.tar.bz2": "f%C3%B6%C3%B6-1.0.tar.bz2",
                "PyYAML-3.13.win32-py2.7.exe": "PyYAML-3.13.win32-py2.7.exe",
            }.items()
        )
    ),
}


def html(*lines: str, head: str = "", tail: str = "<!--SERIAL 7-->") -> bytes:
    body = "\n".join(lines)
    return (
        f"<!DOCTYPE html>\n<html>\n<head>{head}<title>Links for example</title></head>\n"
        f"<body>\n<h1>Links for example</h1>\n{body}\n</body>\n</html>\n{tail}"
    ).encode()


def anchor(filename: str = "example-1.0.tar.gz", attributes: str = "", fragment: str = f"#sha256={SHA}") -> str:
    return f'<a href="{STORE}/{filename}{fragment}" {attributes}>{filename}</a><br/>'


LOOKALIKE_HTML = {
    "plain": html(anchor(attributes='data-requires-python="&gt;=3.8, &lt;4"')),
    "raw > in an attribute": html(anchor(attributes='data-requires-python=">=3.8"')),
    "yanked three ways": html(
        anchor("example-1.tar.gz", "data-yanked"),
        anchor("example-2.tar.gz", 'data-yanked=""'),
        anchor("example-3.tar.gz", 'data-yanked="smelly &amp; &#34;bad&#34;"'),
    ),
    "md5, relative, in several lines": html(
        f'<a href="../../packages/aa/bb/luigi-3.0.0+weasyl.2.tar.gz#md5={MD5}"\n   rel="internal">\n  luigi\n</a>\n<br/>'
    ),
    "no digest": html(anchor(fragment="")),
    "base": html('<a href="aa/bb/example-1.0.zip">x</a>', head='<base href="https://files.example/packages/"/>'),
    "metadata, both names": html(
        anchor(attributes=f'data-dist-info-metadata="sha256={SHA2}" data-core-metadata="true"'),
        anchor("example-2-py3-none-any.whl", f'data-dist-info-metadata="sha256={SHA2}" data-gpg-sig="true"'),
        anchor("example-3-py3-none-any.whl", 'data-core-metadata="false" data-gpg-sig="false"'),
    ),
    "PEP 708 and status": html(
        anchor(),
        head='<meta name="pypi:repository-version" content="1.2"/><meta name="pypi:tracks" content="https://t.example"/>'
        '<meta name="pypi:project-status" content="deprecated"/>'
        '<meta name="pypi:project-status-reason" content="Dev is tired"/>',
    ),
    "navigation beside files": html('<form><input type="text" autofocus/></form><a href="/login">in</a>', anchor()),
    "no page around it": b'<a href="../t/mmcv-2.0.0-cp310-cp310-win_amd64.whl">../t/mmcv</a><br>',
    "Artifactory": b'<html>\n<head><title>Simple Index</title><meta name="api-version" value="2" /></head>\n<body>\n'
    + anchor(fragment=f"#md5={MD5}").encode()
    + b"\n</body>\n</html>\n",
    "without files": html(),
    "provenance, size and time": html(
        anchor(attributes='data-provenance="https://i.example/p?a=1&amp;b=2" data-size="12"'),
        anchor("example-2.tar.gz", 'data-upload-time="2020-01-02T03:04:05Z"'),
    ),
}

#: Pages that are not pages of a project, and part of the reason that we give.
NOT_PAGES = {
    "root list": html('<a href="/simple/in-place/">in_place</a>\n<a href="/simple/foo/">foo</a>'),
    "a login page": b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>",
    "nothing": b"",
}


def document_entry(filename: str = "example-1.0.tar.gz", **more: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "filename": filename,
        "url": f"{STORE}/{filename}",
        "digests": {"md5": MD5, "sha256": SHA, "blake2b_256": SHA},
        "md5_digest": MD5,
        "size": 12,
        "upload_time": "2024-12-06T00:58:03",
        "upload_time_iso_8601": "2024-12-06T00:58:03.138172Z",
        "yanked": False,
        "yanked_reason": None,
        "core-metadata": False,
    } | more
    return {key: value for key, value in raw.items() if value is not ...}


def document(releases: object = ..., urls: object = ..., **more: Any) -> bytes:
    raw = {"info": {"name": "Example", "version": "1.0"}, "last_serial": 7, "releases": releases, "urls": urls, **more}
    return json.dumps({key: value for key, value in raw.items() if value is not ...}).encode()
