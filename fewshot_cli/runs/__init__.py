"""A run on disk: its configuration, checkpoint and results."""
