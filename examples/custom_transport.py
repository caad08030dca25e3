"""A custom transport: a fake web for the tests of your own program, without a network or a server.

The idea: ``transport=`` takes any ``async (request) -> Response`` in place of the wire. All else is as ever: pacing,
redirects, retries, charsets and parsing work on what the fake answers, so a test shows what your program does when
the web misbehaves, in milliseconds and the same each time. Raise a ``FetchError`` for what never answers; any other
error is a bug, and comes through. The test is a plain function: ``pytest examples/custom_transport.py`` runs it too.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from fetcher import Config, Failure, Fetcher, FetchError, Request, Response

HTML = (("content-type", "text/html; charset=utf-8"),)


class FakeWeb:
    """A transport: pages, a redirect, a page that fails twice, and a host that is not there."""

    def __init__(self) -> None:
        self.asked = Counter[str]()

    async def __call__(self, request: Request) -> Response:
        """Answer by the last part of the path."""
        self.asked[request.url] += 1
        match request.url.rpartition("/")[2]:
            case "old":
                return Response(request, request.url, 301, (("location", "/new"),))
            case "moody" if self.asked[request.url] <= 2:
                return Response(request, request.url, 503)
            case "nowhere":
                raise FetchError("dns_not_found", "no such host")
            case name:
                return Response(request, request.url, 200, HTML, f"<title>The {name} page</title>".encode())


async def titles(urls: list[str], web: FakeWeb) -> list[str | None]:
    """Be the program under test: a title for each URL, or what went wrong."""
    config = Config.of(backoff=0.01, robots=False)
    async with Fetcher(config, transport=web) as fetcher, fetcher.stream(urls, ordered=True) as pages:
        return [page.error.code if isinstance(page, Failure) else page.title async for page in pages]


def test_titles() -> None:
    """Show what the program makes of such a web."""
    web = FakeWeb()
    paths = ["plain", "old", "moody", "nowhere"]
    found = asyncio.run(titles([f"https://shop.example/{path}" for path in paths], web))
    assert found == ["The plain page", "The new page", "The moody page", "dns_not_found"]
    assert web.asked["https://shop.example/moody"] == 3
    for path, title in zip(paths, found, strict=True):
        print(f"ok: /{path:8} is {title}")


if __name__ == "__main__":
    test_titles()
    print("passed, and not a byte went over the wire")
