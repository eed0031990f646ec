"""Training: optimizers, a small trainer, and the sunspot series as a task with a long dependency."""
