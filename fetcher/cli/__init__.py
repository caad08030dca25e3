"""The command line: one file a command; nothing imports it. It alone reads the environment."""
