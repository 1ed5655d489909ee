"""Variants of training images: the operations, their configuration, and data sets with variants written out."""
