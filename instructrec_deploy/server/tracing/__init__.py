"""Traces of calls (OpenTelemetry, extra `tracing`), without a word of any text."""
