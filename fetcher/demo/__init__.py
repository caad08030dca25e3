"""The built-in site: a coffee and book shop on many loopback hosts, to try things on and to measure with.

``SiteProcess`` runs it in a process of its own; ``Site`` is its settings. What runs a bench of it is in
``fetcher.bench``.
"""

from fetcher.demo.process import SiteProcess
from fetcher.demo.site import BUSY, GONE, MOVED, PARTNER, ExpectedPage, Site, expected, latency_of, urls

__all__ = [
    "BUSY", "GONE", "MOVED", "PARTNER", "ExpectedPage", "Site", "SiteProcess", "expected", "latency_of", "urls",
]  # fmt: skip
