"""Checkpoint files that cannot be lost: their bytes, their facts, saving, keeping, checking and loading them."""
