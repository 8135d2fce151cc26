"""What pip and uv must be able to do with a mirror, whatever serves it.

The module of a subclass gives the fixtures ``index``, the sample index, and ``site``, a server over the tree that the
engine made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

import pytest

from heliostat.fakeindex import Index
from heliostat.fakeindex.wheels import wheel
from support.forwarding import html_only
from support.installers import pip, uv
from support.mirrored import YANKED, cutoff, mirror_of, sha256_of, upload
from support.rawhttp import get
from support.served import static_server


class Site(Protocol):
    """A running server, and what was asked of it."""

    @property
    def url(self) -> str: ...
    def requests(self) -> list[str]: ...


class Install(Protocol):
    """``pip install`` or ``uv pip install``."""

    def __call__(self, *arguments: str, index: str) -> CompletedProcess[str]: ...


def installed(directory: Path) -> set[str]:
    """``name-version`` of what lies in a ``--target`` directory."""
    return {path.name.removesuffix(".dist-info") for path in directory.glob("*.dist-info")}


def targets(site: Site, since: int) -> list[str]:
    """The request targets after the first ``since`` requests; asks for a page first, so that all before it are logged."""
    get(site.url, "/last-modified")
    return [line.split(" ")[1] for line in site.requests()[since:]]


def release_files(asked: Sequence[str]) -> list[str]:
    """File names of the release files, sidecars not included, of which anything was asked for."""
    found = [target for target in asked if target.startswith("/packages/") and not target.endswith(".metadata")]
    return [target.rpartition("/")[2] for target in found]


def sidecars(asked: Sequence[str]) -> list[str]:
    return [target.rpartition("/")[2] for target in asked if target.endswith(".metadata")]


class InstallScenarios:
    """Scenarios as test methods."""

    @pytest.fixture(params=["json", "html"])
    def simple(self, request: pytest.FixtureRequest, site: Site) -> Iterator[str]:
        """The index in the form that installers prefer, and as those see it that know HTML only."""
        if request.param == "json":
            yield site.url + "/simple/"
        else:
            with html_only(site.url) as url:
                yield url + "/simple/"

    @pytest.fixture(params=["pip", "uv"])
    def install(self, request: pytest.FixtureRequest, tmp_path: Path) -> Install:
        """Installs into ``tmp_path/here``, with the one and the other."""

        def by_pip(*arguments: str, index: str) -> CompletedProcess[str]:
            return pip("install", "--target", "here", *arguments, index=index, work=tmp_path)

        def by_uv(*arguments: str, index: str) -> CompletedProcess[str]:
            return uv("pip", "install", "--target", "here", *arguments, index=index, work=tmp_path)

        return by_pip if request.param == "pip" else by_uv

    def test_installs_with_dependencies(self, install: Install, simple: str, tmp_path: Path) -> None:
        done = install("alpha", index=simple)
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "here") == {"alpha-1.1", "beta-1.0"}

    def test_other_spellings_of_a_name(self, install: Install, site: Site, tmp_path: Path) -> None:
        done = install("BETA", "sdist_only", index=site.url + "/simple")
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "here") == {"beta-1.0", "sdist_only-1.0"}

    def test_only_binary(self, install: Install, simple: str, tmp_path: Path) -> None:
        done = install("--only-binary", ":all:", "beta", index=simple)
        assert done.returncode == 0, done.stderr
        assert install("--only-binary", ":all:", "sdist-only", index=simple).returncode != 0
        assert installed(tmp_path / "here") == {"beta-1.0"}

    def test_an_sdist_is_built(self, install: Install, site: Site, tmp_path: Path) -> None:
        before = len(site.requests())
        done = install("--no-binary", ":all:", "beta", index=site.url + "/simple/")
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "here") == {"beta-1.0"}
        assert release_files(targets(site, before)) == ["beta-1.0.tar.gz"]

    def test_hash_checking_mode(self, install: Install, index: Index, simple: str, tmp_path: Path) -> None:
        alpha = sha256_of(index, "alpha", "alpha-1.1-py3-none-any.whl")
        beta = sha256_of(index, "beta", "beta-1.0-py3-none-any.whl")
        requirements = tmp_path / "requirements.txt"
        arguments = ("--require-hashes", "-r", str(requirements))
        requirements.write_text(f"alpha==1.1 --hash=sha256:{alpha}\nbeta==1.0 --hash=sha256:{alpha}\n")
        refused = install(*arguments, index=simple)
        assert refused.returncode != 0
        assert "hash" in refused.stderr.lower(), refused.stderr
        assert installed(tmp_path / "here") == set()
        requirements.write_text(f"alpha==1.1 --hash=sha256:{alpha}\nbeta==1.0 --hash=sha256:{beta}\n")
        done = install(*arguments, index=simple)
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "here") == {"alpha-1.1", "beta-1.0"}

    def test_pip_resolves_by_metadata_alone(self, simple: str, site: Site, tmp_path: Path) -> None:
        before = len(site.requests())
        arguments = ("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", "alpha")
        done = pip(*arguments, index=simple, work=tmp_path)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert {item["metadata"]["version"] for item in report["install"]} == {"1.1", "1.0"}
        asked = targets(site, before)
        assert sorted(sidecars(asked)) == ["alpha-1.1-py3-none-any.whl.metadata", "beta-1.0-py3-none-any.whl.metadata"]
        assert release_files(asked) == []

    def test_uv_resolves_by_metadata_alone(self, simple: str, site: Site, tmp_path: Path) -> None:
        (tmp_path / "in.txt").write_text("alpha\n")
        before = len(site.requests())
        done = uv("pip", "compile", "--no-header", "--no-annotate", "in.txt", index=simple, work=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["alpha==1.1", "beta==1.0"]
        asked = targets(site, before)
        assert sorted(sidecars(asked)) == ["alpha-1.1-py3-none-any.whl.metadata", "beta-1.0-py3-none-any.whl.metadata"]
        assert release_files(asked) == []

    def test_uv_reads_the_end_of_a_wheel_without_metadata_by_ranges(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "in.txt").write_text("bare\n")
        before = len(site.requests())
        done = uv(
            "pip", "compile", "--no-header", "--no-annotate", "in.txt", index=site.url + "/simple/", work=tmp_path
        )
        assert done.stdout.split() == ["bare==1.0"], done.stderr
        get(site.url, "/last-modified")
        asked = [line for line in site.requests()[before:] if "/packages/" in line]
        assert asked
        assert all(line.startswith("HEAD") or line.endswith(" 206") for line in asked)

    def test_leaves_out_what_is_newer(self, site: Site, tmp_path: Path) -> None:
        simple = site.url + "/simple/"
        (tmp_path / "in.txt").write_text("alpha\n")
        for day, wanted in ((4, "alpha==1.1"), (3, "alpha==1.0")):
            arguments = ("pip", "compile", "--no-header", "--no-annotate", "--exclude-newer", cutoff(day), "in.txt")
            done = uv(*arguments, index=simple, work=tmp_path)
            assert done.stdout.split() == [wanted, "beta==1.0"], done.stderr
        arguments = ("download", "--no-deps", "--dest", "here", "--uploaded-prior-to", cutoff(3), "alpha")
        done = pip(*arguments, index=simple, work=tmp_path)
        assert [path.name for path in (tmp_path / "here").iterdir()] == ["alpha-1.0-py3-none-any.whl"], done.stderr

    def test_what_the_mirror_does_not_have_comes_from_the_next_index(
        self, second: str, site: Site, tmp_path: Path
    ) -> None:
        before = len(site.requests())
        done = uv(
            "pip", "install", "--target", "a", "gamma", index=second, first=[site.url + "/simple/"], work=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "a") == {"gamma-1.0", "alpha-1.1", "beta-1.0"}
        assert "/simple/gamma/" in targets(site, before)
        done = pip("install", "--target", "b", "gamma", index=site.url + "/simple/", extra=[second], work=tmp_path)
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "b") == {"gamma-1.0", "alpha-1.1", "beta-1.0"}

    @pytest.fixture
    def second(self, tmp_path: Path) -> Iterator[str]:
        """Another index, which has ``gamma`` and nothing else."""
        index = Index()
        index.publish("gamma", "1.0", upload(wheel("gamma", "1.0", ["alpha"]), day=1))
        with static_server(mirror_of(index, tmp_path / "second")) as server:
            yield server.url + "/simple/"

    def test_yanked_is_taken_only_when_pinned_and_with_its_reason(
        self, install: Install, simple: str, tmp_path: Path
    ) -> None:
        assert install("--no-deps", "alpha>1.1", index=simple).returncode != 0
        done = install("--no-deps", "alpha==2.0", index=simple)
        assert done.returncode == 0, done.stderr
        assert "yanked" in done.stderr
        assert YANKED in done.stderr
        assert installed(tmp_path / "here") == {"alpha-2.0"}

    def test_requires_python_is_respected(self, install: Install, simple: str) -> None:
        done = install("--no-deps", "alpha==3.0", index=simple)
        assert done.returncode != 0
        assert re.search(r"Requires-Python >=9|Python>=9", done.stderr), done.stderr

    def test_odd_file_names(self, install: Install, simple: str, tmp_path: Path) -> None:
        done = install("odd==1.0+local.1", index=simple)
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "here") == {"odd-1.0+local.1"}
