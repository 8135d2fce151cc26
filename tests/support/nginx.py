"""The real nginx, as the distribution installs it, running ``configs/nginx.conf`` on a loopback port.

The configuration is used as it is but for the two marked lines: ``listen`` and ``root``.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.places import NOBODY, group_of

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "nginx.conf"
STATUS = REPOSITORY / "configs" / "nginx-status.conf"
PING = REPOSITORY / "configs" / "nginx-ping.conf"
SCRIPT = REPOSITORY / "configs" / "heliostat.js"

# What Debian's nginx.conf has around a site, without its fixed paths; plus one worker, and a log that tests can read.
_MAIN = """
{load_module}
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    include {mime_types};
    # what a host's configuration may say for its other sites
    gzip on;
    gzip_types text/css;
    default_type text/x-other;
    gzip_static on;
    gzip_min_length 0;
    autoindex on;
    charset koi8-r;
    open_file_cache max=1000;
    open_file_cache_valid 600s;
    log_format requests "$request_method $request_uri $status";
    access_log access.log requests;
    include heliostat.conf;
    include status*.conf;
    include ping*.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx: its base URL, without a final slash, its access log, and the URLs of its other servers."""

    url: str
    access_log: Path
    status_url: str
    ping_url: str

    def requests(self) -> list[str]:
        """``METHOD TARGET STATUS`` of every request so far.

        A line is written before the worker (there is one) looks at its next request: ask something first to have them all.
        """
        return self.access_log.read_text().splitlines()


@contextmanager
def running_nginx(web_root: str | Path, *, unprivileged: bool = False) -> Iterator[str]:
    """Serve ``web_root`` by :func:`nginx_server`; gives the base URL, without a final slash."""
    with nginx_server(web_root, unprivileged=unprivileged) as server:
        yield server.url


@contextmanager
def nginx_server(
    web_root: str | Path,
    *,
    unprivileged: bool = False,
    replace: dict[str, str] | None = None,
    njs: bool = True,
    status: dict[str, str] | None = None,
    ping: dict[str, str] | None = None,
) -> Iterator[Nginx]:
    """Serve ``web_root`` with ``configs/nginx.conf`` and further replacements in it, each of which must occur once.

    ``unprivileged`` runs the workers as nobody when the tests run as root; the web root must be readable to all then
    (see :func:`support.places.open_directory`).  ``njs=False`` leaves the module unloaded.  ``status`` are replacements
    in ``configs/nginx-status.conf``, which is served on another port then; so are ``ping`` in ``nginx-ping.conf``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="heliostat-nginx-") as directory,
        socket.socket() as listener,
        ExitStack() as stack,
    ):
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        prefix, port = Path(directory), listener.getsockname()[1]
        listeners = [listener]
        beside = dict.fromkeys((STATUS, PING), "")
        for config, changes in ((STATUS, status), (PING, ping)):
            if changes is not None:
                another = stack.enter_context(socket.socket())
                another.bind(("127.0.0.1", 0))
                another.listen(128)
                listeners.append(another)
                beside[config] = _write_beside(prefix, config, another.getsockname()[1], changes)
        user = (NOBODY if unprivileged else "root") if os.geteuid() == 0 else ""
        if user == NOBODY:
            os.chown(prefix, pwd.getpwnam(NOBODY).pw_uid, -1)
        _write_prefix(prefix, web_root, port, user=user, replace=replace or {}, njs=njs)
        # nginx takes over listening sockets named in $NGINX, as in a binary upgrade: no race for the port, and clients
        # may connect at once.
        command = [executable(), "-p", str(prefix), "-c", "nginx.conf", "-e", "stderr"]
        passed = tuple(one.fileno() for one in listeners)
        environ = {**os.environ, "NGINX": "".join(f"{number};" for number in passed)}
        test = subprocess.run(
            [*command, "-t"], env=environ, pass_fds=passed, capture_output=True, text=True, check=False
        )
        if test.returncode or "[warn]" in test.stderr:
            raise AssertionError(f"nginx -t:\n{test.stderr}")
        with (prefix / "stderr").open("wb") as errors:
            process = subprocess.Popen(command, env=environ, pass_fds=passed, stderr=errors)
        try:
            yield Nginx(f"http://127.0.0.1:{port}", prefix / "access.log", beside[STATUS], beside[PING])
            ended = process.poll()
            if ended is not None:
                raise AssertionError(f"nginx ended with {ended}:\n{(prefix / 'stderr').read_text()}")
        finally:
            process.terminate()
            process.wait()


def _write_beside(prefix: Path, config: Path, port: int, replace: dict[str, str]) -> str:
    """Another server of ours, on a port of its own; its URL."""
    text = _replaced(config, replace)
    (prefix / f"{config.stem.removeprefix('nginx-')}.conf").write_text(
        re.sub(r"listen 127\.0\.0\.1:\d+;", f"listen 127.0.0.1:{port};", text)
    )
    return f"http://127.0.0.1:{port}"


def _replaced(path: Path, lines: dict[str, str]) -> str:
    """The text of ``path`` with replacements, each of which must occur once."""
    text = path.read_text()
    for old, new in lines.items():
        if text.count(old) != 1:
            raise AssertionError(f"{path.name} has {old!r} {text.count(old)} times, not once")
        text = text.replace(old, new)
    return text


def executable() -> str:
    """The nginx to test with; its absence is a failure, as for every test that is marked ``outside``."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise AssertionError("nginx is not installed (Debian: apt install nginx libnginx-mod-http-js)")
    return found


def _write_prefix(
    prefix: Path, web_root: str | Path, port: int, *, user: str, replace: dict[str, str], njs: bool
) -> None:
    lines = {"listen 80;": f"listen 127.0.0.1:{port};", "root /srv/pypi/web;": f"root {web_root};"}
    (prefix / "heliostat.conf").write_text(_replaced(CONFIG, lines | replace))
    shutil.copy(SCRIPT, prefix / "heliostat.js")
    main = _MAIN.format(
        user=f"user {user} {group_of(user)};" if user else "",
        load_module=f"load_module {compiled_in('modules-path')}/ngx_http_js_module.so;" if njs else "",
        mime_types=compiled_in("conf-path").with_name("mime.types"),
    )
    (prefix / "nginx.conf").write_text(main)
    (prefix / "tmp").mkdir()


def compiled_in(option: str) -> Path:
    """A path that the installed nginx was built with."""
    shown = subprocess.run([executable(), "-V"], capture_output=True, text=True, check=True).stderr
    found = re.search(rf"--{option}=(\S+)", shown)
    if found is None:
        raise AssertionError(f"nginx -V tells no {option}:\n{shown}")
    return Path(found[1])
