"""Leaves that know nothing of training: files, audio, protocols, metrics, seeding."""
