"""A run on disk: how it was made, what it learnt, what was measured."""
