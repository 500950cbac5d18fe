"""The web tier: accepts, validates, records, enqueues, answers. Never decodes an image, never computes."""
