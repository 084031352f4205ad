"""One module a verb of the `rocket` command."""
