"""The headings under which `--help` and the reference list options, in this order."""

from __future__ import annotations

DATA = "Data"
DETECTOR = "Detector"
LAYERS = "Layers"
AXES = "Axes and tables"
TRAINING = "Training"
AUGMENTATION = "Augmentation"
DETECTIONS = "Detections"
CRITERIA = "Criteria"
DRIFT = "Drift"
MACHINE = "Machine"
OUTPUT = "Output"
ADVANCED = "Advanced"
"""What few people ever need."""

ORDER = (DATA, DETECTOR, LAYERS, AXES, TRAINING, AUGMENTATION, DETECTIONS, CRITERIA, DRIFT, MACHINE, OUTPUT)
"""Any other heading follows these; ADVANCED is the last."""


def place(panel: str) -> int:
    """Sort key of a heading."""
    if panel == ADVANCED:
        return len(ORDER) + 1
    return ORDER.index(panel) if panel in ORDER else len(ORDER)
