"""fsod: adapt a pretrained object detector to a new class from about ten images."""

from fewshot_cli.threads import limit_spinning

limit_spinning()  # here, because OpenMP reads it when torch is imported

__version__ = "0.1.0"
