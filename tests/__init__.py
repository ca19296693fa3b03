"""Tests: unit, contract, golden, e2e; `tests.tiny` makes the bundles they serve."""
