"""Batches as a function of position, and the check of a corpus before it is trained on."""
