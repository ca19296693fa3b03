"""Export: a tuned run becomes a bundle (run.py has the whole way)."""
