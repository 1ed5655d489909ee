"""Many fine-tunes: the grid, how it is run, and what its results say."""
