"""Measurements: each module is a command that writes its figures, with the command that gave them, to docs/results."""
