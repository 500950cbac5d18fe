"""Offline work: sample data, training, evaluation and export. Nothing that serves imports this package."""
