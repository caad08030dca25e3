"""Several processes that fetch one list: a site is asked by one of them, and the parent alone writes."""
