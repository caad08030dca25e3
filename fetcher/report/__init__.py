"""Looking at a run: its figures, its progress, and what is in flight."""
