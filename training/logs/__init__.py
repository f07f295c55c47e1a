"""The logs of a run: every one of them is made from the history in its checkpoint."""
