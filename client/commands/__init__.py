"""The commands of `python -m client`, by what they work on: imports, searches, jobs."""
