"""The sweeps: jobs that are struck at every moment and at every call to the kernel, and what is left of them."""
