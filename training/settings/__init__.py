"""What was asked for: every setting once, the flags, the YAML file, the request, and what changed."""
