"""A trained detector as a file that other programs read."""
