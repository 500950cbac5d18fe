"""The Celery tier: decodes, embeds, searches, indexes and delivers webhooks."""
