"""Brings requests to the wire and whole, bounded responses back."""
