"""Scores and their keys: files, every metric, calibration."""
