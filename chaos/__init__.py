"""Breaks a running Lookalike in every way that docs/operations.md makes a promise about, and counts what was lost."""
