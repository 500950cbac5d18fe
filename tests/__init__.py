"""The tests: unit (no network, no process), integration (real servers), e2e (the Procfile's processes), browser."""
