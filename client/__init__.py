"""The command line client: talks to the API and imports nothing else of Lookalike. Run it with `python -m client`."""
