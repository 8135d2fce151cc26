"""Statistics from the web server's access logs: what was asked for, by whom, how often.

Logs are read once, wherever rotation moves them; counts and positions are kept together in one SQLite file, so that a
kill loses and doubles nothing.  Everything in a log was written by strangers: it is counted, never obeyed.
"""
