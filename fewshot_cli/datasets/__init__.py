"""Images with boxes, splits, and data sets on disk; `formats/` reads and writes label formats."""
