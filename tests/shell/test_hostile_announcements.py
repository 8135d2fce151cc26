"""Names and rows that no feed and no list should hold: refused, listed, and in nobody's way."""

from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, Options
from heliostat.fakeindex.faults import (
    Body,
)
from support import suffering
from support.mirrors import complete_pass, config_for, run_pass

FEED = "/pypi"
LIST = "/simple/"


ABSURD_NAMES = [
    pytest.param("n" * 280, id="long"),
    "../../etc",
    "..",
    "-",
    "a/b",
    "a\\b",
    "a\nb",
    "\u202eevil",
    "n\u00e4m\u0435",
    "<script>alert(1)</script>",
    "%2e%2e",
    "name ",
]


@pytest.mark.parametrize("name", ABSURD_NAMES, ids=ascii)
async def test_an_absurd_name_in_the_feed(name: str, tmp_path: Path) -> None:
    """It is blocked and listed; nothing is asked about it, nothing written, and everything else goes on."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.move_on(index)
        rows = b"".join(
            b"<value><array><data><value><string>%b</string></value><value><nil/></value><value><int>1</int></value>"
            b"<value><string>create</string></value><value><int>%d</int></value></data></array></value>" % (raw, serial)
            for raw, serial in (*_rows(index), (_xml(name), index.serial + 1))
        )
        answer = b"<methodResponse><params><param><value><array><data>%b</data></array></value></param></params></methodResponse>"
        index.skip_serials(1)
        server.fault(FEED, Body(answer % rows, content_type="text/xml"), method="POST", skip=1, times=1)
        summary = await run_pass(config)
        suffering.assert_owed(summary, "blocked", "project name", project=name)
        assert summary.checkpoint == summary.cursor == index.serial
        suffering.assert_others_equal(config, index)
        assert [path.name for path in tmp_path.iterdir()] == ["mirror"]


@pytest.mark.parametrize("name", [*ABSURD_NAMES, "a\x00b"], ids=ascii)
async def test_an_absurd_name_in_the_root_list(name: str, tmp_path: Path) -> None:
    """As in the feed; and when it is gone from the list it is forgotten."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        fault = server.fault(
            LIST, suffering.rewrite(lambda body: body["projects"].append({"name": name, "_last-serial": 1001}))
        )
        summary = await run_pass(config)
        assert [(one.project, one.state) for one in summary.owed] == [(name, "blocked")]
        assert not summary.complete
        assert summary.checkpoint == index.serial
        suffering.assert_equal(config, index)

        fault.remove()
        suffering.publish_victim(index, "2.0")
        await complete_pass(config)
        suffering.assert_equal(config, index)


def _rows(index: Index) -> list[tuple[bytes, int]]:
    return [(row.display.encode(), row.serial) for row in index.rows()]


def _xml(name: str) -> bytes:
    return name.replace("&", "&amp;").replace("<", "&lt;").encode()


def row(name: str, serial: str) -> bytes:
    """A row of the changelog whose name and serial are these elements."""
    between = "<value><nil/></value><value><int>1</int></value><value>create</value>"
    return f"<value><array><data>{name}{between}{serial}</data></array></value>".encode()


ABSURD_ROWS = [
    b"<value><int>7</int></value>",
    b"<value><array><data></data></array></value>",
    b"<value><array><data>" + b"<value><int>1</int></value>" * 5 + b"</data></array></value>",
    row("<value>x</value>", "<value><int>-5</int></value>"),
    row("<value>x</value>", f"<value><int>{'9' * 40}</int></value>"),
    row("<value>x</value>", "<value><string>1100</string></value>"),
    row(f"<value>{'x' * (1 << 20)}</value>", "<value><int>1100</int></value>"),
    row("<value><array><data><value>x</value></data></array></value>", "<value><int>1100</int></value>"),
]


@pytest.mark.parametrize("absurd", ABSURD_ROWS, ids=range(len(ABSURD_ROWS)))
async def test_absurd_rows_in_the_feed(absurd: bytes, tmp_path: Path) -> None:
    """The whole answer counts for nothing, and the list says what changed."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.move_on(index)
        answer = b"<methodResponse><params><param><value><array><data>%b</data></array></value></param></params></methodResponse>"
        server.fault(FEED, Body(answer % absurd, content_type="text/xml"), method="POST", skip=1)
        summary = await complete_pass(config)
        assert summary.cursor == index.serial
        suffering.assert_equal(config, index)


async def test_two_spellings_of_one_name_in_the_root_list(tmp_path: Path) -> None:
    """They are one project, and its higher serial counts."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        server.fault(
            LIST, suffering.rewrite(lambda body: body["projects"].append({"name": "DEMO", "_last-serial": 1001}))
        )
        await complete_pass(config)
        suffering.assert_equal(config, index)
