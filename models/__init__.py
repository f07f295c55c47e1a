"""Detectors (code) and, in subfolders that git ignores, runs."""
