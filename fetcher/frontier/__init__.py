"""Rows that wait to start, fair to hosts: in memory, by time, and on disk."""
