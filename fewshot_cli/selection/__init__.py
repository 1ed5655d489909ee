"""Choosing from the shots alone: cross-validation, and what follows from it. Nothing here sees the test set."""
