"""A changed configuration takes effect: what it adds is looked for, what it leaves out is owed no more, and goes."""

from __future__ import annotations

import hashlib

from heliostat import __version__
from heliostat.config import Config, without_credentials
from heliostat.mirror.denials import leaving_denied
from heliostat.mirror.removals import Removal, begun
from heliostat.mirror.rules import Rules
from heliostat.policy.scope import Scope
from heliostat.state.ledger import Ledger
from heliostat.store.tree import Tree


def take_scope(ledger: Ledger, scope: Scope, now: float, tree: Tree) -> None:
    """Make the ledger follow ``scope``, if it is another one than before; belongs to the keeper's thread.

    What is published and left out is found by :func:`leaving` in every pass until it is gone.  The cursor stays where
    it is for a list of projects, since the feed tells what became of those that were followed before; where everything
    is mirrored from now on, everything has to be compared first.
    """
    known = ledger.get("scope")
    if known == scope.fingerprint:
        return
    with ledger.transaction():
        ledger.abandon_out_of_scope(scope.__contains__, lambda name: begun(tree, ledger, name))
        ledger.welcome_in_scope(scope.__contains__, now)
        for name in sorted(scope.names):
            row = ledger.row(name)
            if row is None or not row.published:
                ledger.intake.want(name, name, now, named=False, why="new")
        if scope.everything and known is not None:
            ledger.put(root_etag=None, cursor=None, rows=None)
        ledger.put(scope=scope.fingerprint)


def take_files(ledger: Ledger, files: bool, now: float) -> None:
    """A mirror that left files out and keeps them from now on owes them all; belongs to the keeper's thread."""
    without = bool(ledger.get("without_files"))
    if without != files:
        return
    with ledger.transaction():
        if without:
            ledger.schedule.owe_again(now)
        ledger.put(without_files=None if files else 1)


def take_limits(ledger: Ledger, config: Config, now: float) -> None:
    """Have another look at what is blocked when what can block it changed: a setting, or the rules of this version."""
    upstream = config.upstream
    urls = sorted(without_credentials(url) for url in upstream.url)
    said = (
        __version__,
        urls,
        upstream.allow_http,
        sorted(upstream.file_hosts),
        upstream.allow_unhashed,
        upstream.max_file,
    )
    limits = hashlib.sha256(repr(said).encode()).hexdigest()[:32]
    if ledger.get("limits") != limits:
        with ledger.transaction():
            ledger.schedule.unblock(now)
            ledger.put(limits=limits)


def held_by_scope(ledger: Ledger, rules: Rules) -> int:
    """How many of the removals that wait for approval are the configuration's, not upstream's."""
    removals = [*leaving(ledger, rules.scope), *leaving_denied(ledger, rules)]
    return sum(removal.row.state == "held" for removal in removals)


def leaving(ledger: Ledger, scope: Scope) -> list[Removal]:
    """The removals of what the scope leaves out and the tree still shows, but for what is denied."""
    if scope.everything:
        return []
    rows = [row for row in ledger.out_of_scope(scope.__contains__) if row.name not in scope.denied]
    return [Removal(row, "no longer in the configured scope", "excluded") for row in rows]
