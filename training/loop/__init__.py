"""Carries out a plan: the starting state, the run folder made ready, the epochs."""
