"""All that must survive a restart, and its way into and out of a checkpoint."""
