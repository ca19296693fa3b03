"""Tuning: recipe in, run folder with a checkpoint and its evaluation out."""
