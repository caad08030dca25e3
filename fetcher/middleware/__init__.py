"""What stands around an exchange: retry, accept, redirects, pacing. Each is one ``async (request, next)``."""
