"""Facts, plan, words: what will be done and why, and what is refused, before anything is written."""
