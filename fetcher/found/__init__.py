"""Links that are followed: what pages name becomes rows, one more source beside the list."""
