"""One file a verb: what a command does and what it prints."""
