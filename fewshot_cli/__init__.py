"""fsod: adapt a pretrained object detector to a new class from about ten images."""

__version__ = "0.1.0"
