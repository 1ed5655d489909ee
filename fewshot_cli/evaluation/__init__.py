"""COCO metrics, and how far layers moved."""
