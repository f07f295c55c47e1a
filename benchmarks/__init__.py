"""One script for each figure the README states; each prints what it compares, and on which machine."""
