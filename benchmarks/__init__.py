"""One script for each figure the docs state; each prints what it compares, and on which machine."""
