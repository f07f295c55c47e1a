"""What is trained: one step and one validation of each task, and the figures that they give."""
