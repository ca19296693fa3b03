"""Recognizers of personal data, by kind and region; each works on a folded text."""
