"""The commands that are compared: heliostat with its configuration, and curl fetching the same URLs."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

#: Bounds for an upstream of one's own; the defaults are for the public index.
TUNED = {"metadata-at-once": 32, "files-at-once": 64}
#: The same where each answer takes 100 ms; and the key of ``[mirror]`` that goes with it.
TUNED_FOR_LATENCY = {"metadata-at-once": 256, "files-at-once": 512}
SPREAD_FOR_LATENCY = {"projects-at-once": 256}


def heliostat_config(
    url: str,
    directory: str,
    upstream: Mapping[str, object] | None = None,
    mirror: Mapping[str, object] | None = None,
    service: Mapping[str, object] | None = None,
) -> str:
    """Write the configuration of a mirror of everything at ``url`` beside ``directory``; its path.

    ``upstream``, ``mirror`` and ``service`` are further keys of those sections.
    """
    lines = ["[mirror]", f'directory = "{directory}"', "everything = true", 'min-free = "0%"']
    lines += [f"{key} = {json.dumps(value)}" for key, value in (mirror or {}).items()]
    lines += ["[upstream]", f'url = "{url}"', "allow-http = true"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in (upstream or {}).items()]
    lines += ["[service]", *(f"{key} = {json.dumps(value)}" for key, value in (service or {}).items())]
    path = f"{directory}.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def heliostat(config: str, *words: str) -> list[str]:
    """The command of one pass, or of ``words`` instead; its summary is JSON."""
    return [sys.executable, "-m", "heliostat", "--json", *(words or ("mirror", "--once")), "--config", config]


def simple_json(url: str) -> Any:
    """A Simple API answer, decoded."""
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def urls_of_everything(url: str) -> list[str]:
    """Every page, document, file and sidecar of the index: what a mirror must fetch."""
    found = []
    for entry in simple_json(f"{url}/simple/")["projects"]:
        page = f"{url}/simple/{entry['name'].lower()}/"
        found += [page, f"{url}/pypi/{entry['name'].lower()}/json"]
        for file in simple_json(page)["files"]:
            found.append(file["url"])
            if file.get("core-metadata"):
                found.append(file["url"] + ".metadata")
    return found


def curl_parallel(urls: Sequence[str], directory: str, at_once: int = 50) -> list[str]:
    """curl fetching ``urls`` side by side into ``directory``, each under its URL's path.

    Nothing is parsed, checked, recorded or synced; what gets a 503 is tried again.
    """
    listing = f"{directory}.curl"
    with open(listing, "w", encoding="utf-8") as file:
        for url in urls:
            path = url.split("/", 3)[3].rstrip("/")
            leaf = "/body" if url.endswith(("/json", "/")) else ""
            target = f"{directory}/{path}{leaf}"
            file.write(f'url = "{url}"\noutput = "{target}"\n')
    return [
        "curl", "--silent", "--no-progress-meter", "--show-error",
        "--fail", "--retry", "5", "--parallel", "--parallel-max", str(at_once), "--create-dirs",
        "--header", "Accept: application/vnd.pypi.simple.v1+json, */*;q=0.1", "--config", listing,
    ]  # fmt: skip


def curl_then_openssl(urls: Sequence[str], directory: str, at_once: int) -> list[str]:
    """The same, and then the SHA-256 of every file by ``openssl dgst`` on all cores."""
    hashing = "find . -type f -print0 | xargs -0 -n 1 -P $(nproc) openssl dgst -sha256 >/dev/null"
    script = f'cd "$1" && shift && "$@" && {hashing}'
    return ["sh", "-c", script, "sh", directory, *curl_parallel(urls, directory, at_once)]
