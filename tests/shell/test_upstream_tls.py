"""Over TLS, directly and through a proxy's tunnel: certificates are checked, and the rest is as over plain HTTP."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from heliostat.errors import Unavailable
from support.upstreams import upstream

#: Run with the test's authority as the one that is trusted; large enough for several TLS records and pauses.
CLIENT = """
import asyncio, sys
from support.upstreams import upstream

async def main():
    url, proxy = sys.argv[1], sys.argv[2] or None
    async with upstream(url, proxy=proxy, retries=1) as index:
        for _ in range(3):
            body = await index.whole(index.check_url(url + "/file"), 900_000)
            assert body == b"x" * 900_000
        for _ in range(3):
            got = bytearray()
            async with index.stream(url + "/large", size=9_000_000) as stream:
                async for batch in stream:
                    got += batch
            assert got == (b"%08d" * 1_125_000) % tuple(range(1_125_000))
        print("all came")

runner = asyncio.Runner(loop_factory=__import__("uvloop").new_event_loop if sys.argv[3] == "uvloop" else None)
with runner:
    runner.run(main())
"""
BODIES = {"/file": b"x" * 900_000, "/large": (b"%08d" * 1_125_000) % tuple(range(1_125_000))}


@asynccontextmanager
async def served(authority: trustme.CA, *names: str) -> AsyncIterator[str]:
    """A server with a certificate for ``names``; its URL says localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = BODIES[head.split(b" ")[1].decode()]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def tunnel(asked: list[str]) -> AsyncIterator[str]:
    """A proxy that makes tunnels, and notes what it was asked for."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head)
        target = head.split(" ")[1].rpartition(":")[2]
        inward, outward = await asyncio.open_connection("127.0.0.1", int(target))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, outward), pump(inward, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        yield f"http://me:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def client(tmp_path: Path, authority: trustme.CA, url: str, loop: str, proxy: str = "") -> str:
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    tests = str(Path(__file__).parent.parent)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, url, proxy, loop,
        env={"SSL_CERT_FILE": str(bundle), "PYTHONPATH": tests, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_files_over_tls(tmp_path: Path, loop: str) -> None:
    authority = trustme.CA()
    async with served(authority, "localhost") as url:
        assert await client(tmp_path, authority, url, loop) == "all came\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_through_a_tunnel(tmp_path: Path, loop: str) -> None:
    authority, asked = trustme.CA(), list[str]()
    async with served(authority, "localhost") as url, tunnel(asked) as proxy:
        assert await client(tmp_path, authority, url, loop, proxy) == "all came\n"
    assert asked
    assert all(head.startswith("CONNECT localhost:") for head in asked)
    assert all("Proxy-Authorization: Basic bWU6c2VjcmV0" in head for head in asked)


async def test_a_certificate_that_nobody_vouches_for() -> None:
    async with served(trustme.CA(), "localhost") as url, upstream(url, retries=1) as index:
        with pytest.raises(Unavailable, match="certificate not accepted"):
            await index.whole(index.check_url(url + "/file"), 900_000)


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with served(authority, "other.example") as url:
        assert "certificate not accepted" in await client(tmp_path, authority, url, "uvloop")
