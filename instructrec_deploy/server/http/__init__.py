"""The HTTP door: the same calls as JSON, metrics and health (extra `http`)."""
