"""Parts of `python -m benchmarks.kills`: what is started, how it is ended, and what must be there after it."""
