"""Which safety policy is in force, and what is written down about its decisions."""
