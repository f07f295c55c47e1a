"""Run folders: where they lie, what they hold, who may write in them, and what is said of them."""
