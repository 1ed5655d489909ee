"""Fine-tuning: which layers train, the feature cache, the loop, the run on disk."""
