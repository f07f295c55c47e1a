"""Spoofs made of the bona fide speech of a corpus: by vocoders, in files like their sources, in a corpus of its own."""
