"""From a command to a trained detector: options, plan, checkpoints, state, loop."""
