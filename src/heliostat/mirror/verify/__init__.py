"""``heliostat verify``: a tree against its own pages, its ledger, or upstream, in flat memory and without a lock.

1. Names (:mod:`.founds`): the sorted listings of ``simple/``, ``json/``, ``pypi/``, ``integrity/``, the root pages and
   the ledger are merged; each project's pages are judged (:mod:`.judge`) and what they claim goes into sorted runs.
2. Files (:mod:`.shelves`): the claims are merged with a sorted walk of the store; what is there is measured and hashed.
3. Again (:mod:`.again`): a mirror may be at work, so whatever seemed wrong is looked at once more.

A finding is what seemed wrong twice.  :mod:`.repair` acts on findings; it alone needs the mirror's lock.
"""
