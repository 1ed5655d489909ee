"""Fine-tuning in four steps: plan, features, fit, record."""
