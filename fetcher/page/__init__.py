"""What becomes of a body: its charset, its tree, its title and links, and what was selected from it."""
