"""`make bench-index`: kinds of index and other libraries on the same vectors; writes docs/results/index.md."""
