"""Model selection from the shots alone; the test set is never read.

Cross-validation is one mechanism (`folds`, `left_out`) with several uses: an estimate and thresholds
(`cross_validation`), the share of the trained weights (`alpha`), and policy `auto` (`candidates`, `criteria` of their
layers from `gradients`, `search`, `trials`). `validate_run` and `search_run` keep them in the folder of a run.
"""
