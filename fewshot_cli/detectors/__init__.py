"""Pretrained detectors as chains of named layers."""
