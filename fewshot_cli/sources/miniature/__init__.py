"""Miniature: a small world drawn by this package, for work without a network. It stands in for the download only."""
