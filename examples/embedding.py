"""Embedding: a fetcher as one part of a larger asyncio program, which goes on while pages come.

The idea: one ``Fetcher`` for the whole program, and whoever has it may use it at any time: here a small TCP service
that answers each line, a URL, with the page's title, and a walk that goes round the shop for ever, both within the
same slots. A ``TaskGroup`` holds them together; when the last client has gone, ``fetcher.stop()`` ends the walk.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import closing
from functools import partial

from fetcher import Fetcher, FetchError
from fetcher.demo import Site, SiteProcess


async def serve(fetcher: Fetcher, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a client's lines, one after the other, until it leaves."""
    with closing(writer):
        while line := await reader.readline():
            try:
                page = await fetcher.fetch(line.decode())
                writer.write(f"{page.title}, {page.length} characters\n".encode())
            except FetchError as error:
                writer.write(f"sorry, {error}\n".encode())


async def visit(port: int, name: str, urls: list[str]) -> None:
    """Be a client: ask for a few titles."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        for url in urls:
            writer.write(f"{url}\n".encode())
            print(f"{name:4} hears: {(await reader.readline()).decode().rstrip()}")


async def walk(fetcher: Fetcher, urls: list[str]) -> int:
    """Go round the shop until somebody says stop, and return the number of pages."""
    async with fetcher.stream(itertools.cycle(urls)) as outcomes:
        return sum([outcome.ok async for outcome in outcomes])


async def main(urls: list[str]) -> None:
    """Open the service and the walk, let three clients come and go, and end it all in good order."""
    async with Fetcher() as fetcher, await asyncio.start_server(partial(serve, fetcher), "127.0.0.1") as door:
        port = door.sockets[0].getsockname()[1]
        async with asyncio.TaskGroup() as group:
            walking = group.create_task(walk(fetcher, urls))
            wishes = {"Ada": urls[:4], "Bo": urls[4:8], "Cleo": [*urls[8:10], "ftp://shop.example/"]}
            await asyncio.gather(*(visit(port, *client) for client in wishes.items()))
            fetcher.stop()
    print(f"\nmeanwhile the walk saw {walking.result()} pages; all is closed")


if __name__ == "__main__":
    with SiteProcess(Site(pages=30, failures=False)) as shop:
        asyncio.run(main(shop.urls()))
