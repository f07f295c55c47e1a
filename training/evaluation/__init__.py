"""Scores every trial of a set with a trained detector, goes on where that was stopped, and measures."""
