"""Other copies of the same index, looked at over HTTP: how current they are, and whether they are whole."""
