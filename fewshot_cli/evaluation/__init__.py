"""Measuring detections with the field's metric."""
