"""Our pages: the keys and bytes that installers need, and none that break one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.pages.render import escape, project_html, project_json, root_html, root_json
from support.pages_cases import MD5, SHA, SHA2, recorded

NAME = ProjectName("example")
FROZEN_LINE = f'<a href="URL#sha256={SHA}" data-requires-python="&gt;=3.14" >example2-1.0.0.tar.gz</a><br />\n'
#: The form that the public index froze, written down here for when its own recording is not there.
FROZEN_PROJECT = (
    '<!DOCTYPE html>\n<html lang="en">\n  <head>\n    <meta name="pypi:repository-version" content="1.4">\n'
    '<meta name="pypi:project-status" content="archived">    <title>Links for example2</title>\n  </head>\n  <body>\n'
    f"    <h1>Links for example2</h1>\n{FROZEN_LINE}</body>\n</html>\n<!--SERIAL 0-->"
)
FROZEN_ROOT = (
    '<!DOCTYPE html>\n<html lang="en">\n  <head>\n    <meta name="pypi:repository-version" content="1.4">\n'
    "    <title>Simple index</title>\n  </head>\n  <body>\n</body>\n</html>"
)


def file(filename: str = "example-1.0.tar.gz", **more: Any) -> DistFile:
    given: dict[str, Any] = {"filename": filename, "url": "URL", "hashes": {"sha256": SHA}, "size": 1}
    return DistFile(**(given | more))


def page(*files: DistFile, **more: Any) -> ProjectPage:
    given: dict[str, Any] = {"name": NAME, "files": files, "versions": ("1.0",), "serial": 7}
    return ProjectPage(**(given | more))


def rendered(*files: DistFile, **more: Any) -> Any:
    return json.loads(project_json(page(*files, **more)))


def line(**more: Any) -> str:
    """The HTML line of one file."""
    return project_html(page(file(**more))).decode().split("</h1>\n")[1].split("</body>")[0]


def test_json_bytes() -> None:
    wheel = file(
        "example-1.0-py3-none-any.whl",
        hashes={"sha256": SHA, "md5": MD5},
        size=12,
        upload_time="2023-01-28T10:52:52.445537Z",
        requires_python=">=3.8",
        yanked='it is "bad" \u2603',
        core_metadata={"sha256": SHA2},
        provenance="https://i.example/p",
    )
    assert project_json(page(wheel, serial=7)).decode() == (
        f'{{"files":[{{"core-metadata":{{"sha256":"{SHA2}"}},"data-dist-info-metadata":{{"sha256":"{SHA2}"}},'
        f'"filename":"example-1.0-py3-none-any.whl","hashes":{{"sha256":"{SHA}"}},"provenance":"https://i.example/p",'
        '"requires-python":">=3.8","size":12,"upload-time":"2023-01-28T10:52:52.445537Z","url":"URL",'
        '"yanked":"it is \\"bad\\" \u2603"}],"meta":{"_last-serial":7,"api-version":"1.4"},"name":"example",'
        '"project-status":{"status":"active"},"versions":["1.0"]}\n'
    )


def test_json_keys_are_sorted_at_every_level() -> None:
    whole = file(gpg_sig=True, core_metadata=True, upload_time="2020-01-01T00:00:00Z", yanked=True)
    raw = rendered(whole, status="archived", status_reason="old")
    for level in (raw, raw["meta"], raw["files"][0], raw["project-status"]):
        assert list(level) == sorted(level)


def test_what_is_not_known_is_left_out() -> None:
    raw = rendered(file(size=None, hashes={}), serial=None, versions=None)
    assert raw["files"][0] == {
        "filename": "example-1.0.tar.gz",
        "hashes": {},
        "provenance": None,
        "requires-python": None,
        "url": "URL",
        "yanked": False,
    }
    assert set(raw) == {"files", "meta", "name", "project-status"}
    assert set(raw["meta"]) == {"api-version"}


@pytest.mark.parametrize(
    ("files", "versions", "version"),
    [
        ([file()], ("1.0",), "1.4"),
        ([], (), "1.4"),
        ([file()], None, "1.0"),
        ([file(), file("b", size=None)], (), "1.0"),
    ],
)
def test_the_version_stated_is_the_one_that_the_page_keeps(files: Any, versions: Any, version: str) -> None:
    assert rendered(*files, versions=versions)["meta"]["api-version"] == version


@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        (True, True),
        (False, False),
        ({"sha256": SHA2, "md5": MD5}, {"sha256": SHA2}),
        ({"blake2s": SHA}, True),
        ({}, True),
    ],
)
def test_core_metadata_under_both_names_and_never_the_first(metadata: Any, shown: Any) -> None:
    entry = rendered(file(core_metadata=metadata))["files"][0]
    assert entry["core-metadata"] == entry["data-dist-info-metadata"] == shown
    assert "dist-info-metadata" not in entry


@pytest.mark.parametrize(
    ("hashes", "in_json", "in_html"),
    [
        ({"md5": MD5, "sha256": SHA, "blake2b_256": SHA}, {"sha256": SHA}, f"#sha256={SHA}"),
        ({"md5": MD5, "sha512": "0" * 128, "sha384": "0" * 96}, {"sha512": "0" * 128}, "#sha512=" + "0" * 128),
        ({"md5": MD5, "sha384": "0" * 96}, {"sha384": "0" * 96}, "#sha384=" + "0" * 96),
        ({"md5": MD5}, {"md5": MD5}, f"#md5={MD5}"),
        ({"md5": MD5, "sha1": "0" * 40}, {"sha1": "0" * 40}, f"#md5={MD5}"),
        ({"sha1": "0" * 40}, {"sha1": "0" * 40}, ""),
        ({"blake2b_256": SHA}, {}, ""),
        ({}, {}, ""),
    ],
)
def test_one_hash_that_every_installer_knows(hashes: Any, in_json: dict[str, str], in_html: str) -> None:
    assert rendered(file(hashes=hashes))["files"][0]["hashes"] == in_json
    assert line(hashes=hashes) == f'<a href="URL{in_html}" >example-1.0.tar.gz</a><br />\n'


@pytest.mark.parametrize(
    ("more", "attributes"),
    [
        ({}, " "),
        ({"requires_python": '>=3,<4 & "x"'}, ' data-requires-python="&gt;=3,&lt;4 &amp; &#34;x&#34;" '),
        ({"yanked": True}, ' data-yanked="" '),
        ({"yanked": "it's <bad>"}, ' data-yanked="it&#39;s &lt;bad&gt;" '),
        (
            {"core_metadata": {"sha256": SHA2}},
            f' data-dist-info-metadata="sha256={SHA2}" data-core-metadata="sha256={SHA2}"',
        ),
        ({"core_metadata": True}, ' data-dist-info-metadata="true" data-core-metadata="true"'),
        ({"core_metadata": {"sha1": "0" * 40}}, ' data-dist-info-metadata="true" data-core-metadata="true"'),
        ({"core_metadata": False}, " "),
        ({"provenance": "https://i/?a&b"}, '  data-provenance="https://i/?a&amp;b"'),
        ({"gpg_sig": True}, '  data-gpg-sig="true"'),
        ({"gpg_sig": False}, '  data-gpg-sig="false"'),
        (
            {"requires_python": ">3", "yanked": "x", "core_metadata": True, "provenance": "p", "gpg_sig": True},
            (
                ' data-requires-python="&gt;3" data-yanked="x" data-dist-info-metadata="true" data-core-metadata="true"'
                ' data-provenance="p" data-gpg-sig="true"'
            ),
        ),
    ],
)
def test_html_attributes_in_their_order_and_spacing(more: Any, attributes: str) -> None:
    assert line(**more) == f'<a href="URL#sha256={SHA}"{attributes}>example-1.0.tar.gz</a><br />\n'


def test_href_and_name_are_escaped() -> None:
    odd = "a'b&c\"<d>.whl"
    assert line(filename=odd, url=odd, hashes={}) == (
        '<a href="a&#39;b&amp;c&#34;&lt;d&gt;.whl" >a&#39;b&amp;c&#34;&lt;d&gt;.whl</a><br />\n'
    )
    assert escape("&amp;") == "&amp;amp;"


def frozen(name: str, own: str) -> bytes:
    found = [path for path in recorded("simple-html", ".html") if path.name == name]
    return found[0].read_bytes() if found else own.encode()


def test_the_frozen_project_page() -> None:
    url, sha = "URL", SHA
    expected = frozen("frozen-detail-archived.html", FROZEN_PROJECT)
    if b"localhost" in expected:
        url, sha = "http://localhost:7000/", "a1dce4642866a610552fab0817cc7926f12d9ecc11f7016eb07bd5e721cee61e"
    made = ProjectPage(
        name=ProjectName("example2"),
        files=(DistFile(filename="example2-1.0.0.tar.gz", url=url, hashes={"sha256": sha}, requires_python=">=3.14"),),
        status="archived",
        serial=0,
    )
    assert project_html(made) == expected
    swapped = ProjectPage(
        name=made.name, files=(file(made.files[0].filename, requires_python=">=3.14"),), status="archived", serial=0
    )
    assert project_html(swapped).decode() == FROZEN_PROJECT


def test_the_frozen_root_page() -> None:
    assert b"".join(root_html([])) == frozen("frozen-root.html", FROZEN_ROOT)


def test_no_serial_no_comment() -> None:
    assert project_html(page(serial=None)).endswith(b"</html>\n")
    assert project_html(page(serial=12)).endswith(b"</html>\n<!--SERIAL 12-->")


def test_status_and_reason() -> None:
    html = project_html(page(file(), status="deprecated", status_reason='use "x" & <y>')).decode()
    assert '<meta name="pypi:project-status" content="deprecated">' in html
    assert '<meta name="pypi:project-status-reason" content="use &#34;x&#34; &amp; &lt;y&gt;">    <title>' in html
    assert rendered(file(), status="deprecated", status_reason="r")["project-status"] == {
        "reason": "r",
        "status": "deprecated",
    }


def test_a_project_without_files_says_so() -> None:
    html = project_html(page()).decode()
    assert "<p>This project has no files.</p>" in html
    assert "<a" not in html
    assert rendered()["files"] == []


def test_a_quarantined_project_offers_nothing_and_says_why() -> None:
    made = page(file(), status="quarantined", status_reason="holds <script>malware</script>")
    html = project_html(made).decode()
    assert "This project is quarantined: holds &lt;script&gt;malware&lt;/script&gt;. Its files are not offered." in html
    assert "This project is quarantined. " in project_html(page(file(), status="quarantined")).decode()
    assert "<a" not in html
    assert "URL" not in html
    raw = json.loads(project_json(made))
    assert raw["files"] == []
    assert raw["project-status"]["status"] == "quarantined"


ENTRIES = [("Foo.Bar", "foo-bar", 3), ("0-._.-0", "0-0", None), ("<\"&'>", "odd", 0)]


def test_root_json() -> None:
    assert b"".join(root_json(ENTRIES, 42)).decode() == (
        '{"meta":{"_last-serial":42,"api-version":"1.4"},"projects":[{"_last-serial":3,"name":"Foo.Bar"},'
        '{"name":"0-._.-0"},{"_last-serial":0,"name":"<\\"&\'>"}]}\n'
    )
    assert b"".join(root_json([], None)) == b'{"meta":{"api-version":"1.4"},"projects":[]}\n'


def test_root_html() -> None:
    html = b"".join(root_html(ENTRIES)).decode()
    assert html == FROZEN_ROOT.replace(
        "  <body>\n",
        '  <body>\n<a href="foo-bar/">Foo.Bar</a>\n<a href="0-0/">0-._.-0</a>\n'
        '<a href="odd/">&lt;&#34;&amp;&#39;&gt;</a>\n',
    )


@pytest.mark.parametrize("count", [1, 2047, 2048, 2049, 4096, 10_000])
def test_long_roots_come_in_large_chunks(count: int) -> None:
    entries = [(f"Project_{n}", f"project-{n}", 10_000_000 + n) for n in range(count)]
    chunks = list(root_json(iter(entries), 42))
    raw = json.loads(b"".join(chunks))
    assert raw["projects"] == [{"_last-serial": serial, "name": display} for display, _, serial in entries]
    assert all(len(chunk) > 65536 for chunk in chunks[:-2])
    assert all(len(chunk) < 1 << 20 for chunk in chunks)
    html = list(root_html(iter(entries)))
    assert b"".join(html).count(b"<a href=") == count
    assert all(len(chunk) > 65536 for chunk in html[1:-2])


def test_the_root_is_produced_as_it_is_read() -> None:
    """An endless ledger would do: nothing is collected before the first chunk."""

    def endless() -> Iterator[tuple[str, str, int]]:
        number = 0
        while True:
            yield f"p{number}", f"p{number}", number
            number += 1

    json_chunks, html_chunks = root_json(endless(), 1), root_html(endless())
    assert next(json_chunks).startswith(b'{"meta"')
    assert next(html_chunks).startswith(b"<!DOCTYPE")
    assert next(html_chunks).startswith(b'<a href="p0/">p0</a>')
