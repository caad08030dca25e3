"""robots.txt (RFC 9309): fetched once for each origin, and each exchange judged by it."""
