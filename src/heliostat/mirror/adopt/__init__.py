"""Taking over the tree of another mirror, in place.

``layouts`` tells whose tree it is and brings it below ``web/``; ``catalogue`` finds the projects, however their folders
are called; ``drafts`` reads what a project's pages and document say; ``files`` looks whether that is there, and right;
``plans`` says what is to be done about it; ``run`` does that, project by project, and can be killed at any instant;
``report`` keeps what was found.
"""
