"""When which serial was upstream's: what turns "so many serials behind" into "so many seconds behind".

A few dozen pairs are kept as text in the ledger, beside the serial itself and written when that is.  Recent ones are
exact; the older they are the fewer are left, so that an age is known to a few percent.
"""

from __future__ import annotations

#: Pairs that are kept.
MOST = 64


def noted(text: str | None, serial: int, now: float) -> str:
    """``text`` with one more sighting; one of a lower serial, of an index that went back, begins anew."""
    pairs = _pairs(text)
    if pairs and serial < pairs[-1][0]:
        pairs = []
    if not pairs or serial > pairs[-1][0]:
        pairs.append((serial, now))
    if len(pairs) > MOST:
        ages = [max(now - when, 1.0) for _, when in pairs]
        # The one whose loss blurs its age the least goes: its neighbours are nearest, measured by how old they are.
        worst = min(range(1, len(pairs) - 1), key=lambda at: (ages[at - 1] - ages[at + 1]) / ages[at])
        del pairs[worst]
    return " ".join(f"{serial}@{when:.1f}" for serial, when in pairs)


def seen_at(text: str | None, serial: int) -> float | None:
    """When a serial of at least ``serial`` was seen first; None when none was, or nothing is remembered."""
    return next((when for known, when in _pairs(text) if known >= serial), None)


def _pairs(text: str | None) -> list[tuple[int, float]]:
    """Nonsense, as nobody writes it here, counts as nothing."""
    try:
        split = (item.partition("@") for item in (text or "").split())
        return [(int(serial), float(when)) for serial, _, when in split]
    except ValueError:
        return []
