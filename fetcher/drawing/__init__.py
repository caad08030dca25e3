"""Drawing: what the pages of reports are made of, and how figures are written on them."""
