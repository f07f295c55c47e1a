"""What tells of a run, all of it made from its history: CSV, TensorBoard, W&B and the run page."""
