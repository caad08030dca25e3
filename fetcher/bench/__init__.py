"""The bench: a built-in site to fetch from, and what measures a fetch of it."""
