"""The specification: what the program promises, each sentence a test."""
