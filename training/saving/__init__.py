"""Durable while training goes on: copies in memory, the thread that writes, the order of what a save leads to."""
