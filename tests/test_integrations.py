"""The README's lines where they are used: in data frames, in a real Jupyter kernel, in a FastAPI application.

Skipped, by name, without the extra ``integration``; ``.ci/run`` installs it in an environment of its own.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fetcher import Config, fetch_all, records
from tests.lab.command import ROOT
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer
from tests.test_readme import README, blocks

TABLES, SERVER = blocks(README, "python")[1:3]
DEADLINE = 120

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours


# Data frames


@pytest.fixture(scope="module")
def found() -> Iterator[list[dict[str, Any]]]:
    """The records of 150 pages, with failures behind them, each with fields of its own kind."""
    with LabServer.in_thread() as lab:
        urls = [*(lab.url(f"/ok?title={row}") for row in range(150)), lab.url("/status/404"), "ftp://no.example/"]
        yield list(records(fetch_all(urls, Config.of(robots=False, select=["said=title", "links[]=a@href"]))))


def test_pandas_takes_records(found: list[dict[str, Any]]) -> None:
    pandas = pytest.importorskip("pandas")
    for given in (found, iter(found)):
        frame = pandas.DataFrame(given)
        assert frame.shape == (152, len(found[0]))
        assert list(frame) == list(found[0])
        assert list(frame["error"].dropna()) == ["http_404", "invalid_url"]
        assert [frame["id"].dtype.kind, frame["elapsed"].dtype.kind] == ["i", "f"]
        assert frame["data"][7] == {"said": "7", "links": []}


def test_polars_takes_records_when_it_looks_at_all_of_them(found: list[dict[str, Any]]) -> None:
    polars = pytest.importorskip("polars")
    for given in (found, iter(found)):
        frame = polars.DataFrame(given, infer_schema_length=None)
        assert frame.to_dicts() == [{**record, "data": record["data"]} for record in found]
        assert frame.schema["error"] == polars.String
        assert frame["error"].drop_nulls().to_list() == ["http_404", "invalid_url"]
    with pytest.raises(polars.exceptions.ComputeError, match="infer_schema_length"):
        polars.DataFrame(found)


# A kernel


def notebook(*cells: str) -> tuple[Any, Any]:
    """A notebook of these cells, and the client that runs it in a kernel of its own."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    made = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    return made, nbclient.NotebookClient(made, timeout=DEADLINE, kernel_name="python3")


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_readmes_lines_run_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    library = blocks(README, "python")[0].replace("asyncio.run(main(shop.urls(10)))", "await main(shop.urls(10))")
    made, client = notebook(
        "import asyncio; asyncio.get_running_loop()", TABLES, library, "records(outcomes); len(outcomes)"
    )
    client.execute()
    assert "[200 rows x" in printed(made.cells[1])
    assert "shape: (200," in printed(made.cells[1])
    assert len(printed(made.cells[2]).splitlines()) == 11
    assert made.cells[3].outputs[0]["data"]["text/plain"] == "200"


def test_the_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    made = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    nbformat.validate(made)
    nbclient.NotebookClient(made, timeout=DEADLINE, kernel_name="python3").execute()
    shown = made.cells[1].outputs[-1]["data"]
    assert "price_currency" in shown["text/plain"]
    assert shown["text/html"].count("<tr>") >= 4


def test_a_kernel_that_is_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with LabServer.in_thread() as lab:
        held = HeldCase()
        lab.add("/held", held)
        made, client = notebook(
            f"from fetcher import fetch_all\nfetch_all([{lab.url('/held')!r}], robots=False, read_timeout=500)",
            f"fetch_all([{lab.url('/ok?title=after')!r}], robots=False)[0].title",
        )
        with client.setup_kernel():
            striker = threading.Thread(target=interrupt, args=(lab, client.km))
            striker.start()
            try:
                with pytest.raises(Exception, match="KeyboardInterrupt"):
                    client.execute_cell(made.cells[0], 0)
                client.execute_cell(made.cells[1], 1)
            finally:
                held.open()
                striker.join()
    assert made.cells[1].outputs[0]["data"]["text/plain"] == "'after'"


def interrupt(lab: LabServer, kernel: Any) -> None:
    """Do what the stop button does, once the request is on its way."""
    from jupyter_core.utils import run_sync

    lab.site.stats.wait(lambda: lab.requests("/held") != [], DEADLINE)
    run_sync(kernel.interrupt_kernel)()


# A server


@contextmanager
def served(text: str) -> Iterator[tuple[Any, str]]:
    """Serve the application that ``text`` makes, with uvicorn, in a thread of its own; gives it and its URL."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    made: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec", dont_inherit=True), made)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(made["app"], log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield made["app"], f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
    assert not thread.is_alive()


def test_the_readmes_server_answers_and_keeps_its_connections() -> None:
    httpx = pytest.importorskip("httpx")
    text = SERVER.replace('private_network="deny"', "robots=False, per_host=1")
    assert text != SERVER
    with LabServer.in_thread() as lab, served(text) as (app, url), httpx.Client(base_url=url) as client:
        for row in range(5):
            answer = client.get("/title", params={"url": lab.url(f"/ok?title={row}")})
            assert (answer.status_code, answer.json()) == (200, {"title": str(row)})
        assert client.get("/title", params={"url": lab.url("/status/404")}).json() == {"error": "http_404"}
        assert lab.connections.total == 1, "one fetcher serves all requests"
        fetcher = app.state.fetcher
        assert fetcher.in_flight() == []
    with pytest.raises(RuntimeError, match="not open"):
        _ = fetcher.gate


def test_the_readmes_server_reaches_no_private_address() -> None:
    httpx = pytest.importorskip("httpx")
    with LabServer.in_thread() as lab, served(SERVER) as (_, url):
        answer = httpx.get(f"{url}/title", params={"url": lab.url("/ok")})
        assert answer.json() == {"error": "address_blocked"}
        assert lab.log == []


def test_a_blocking_call_in_a_handler_works_in_both_kinds() -> None:
    httpx = pytest.importorskip("httpx")
    text = re.sub(r"@app[\s\S]*", "", SERVER) + (
        "from fetcher import fetch\n"
        "@app.get('/plain')\ndef plain(url: str): return fetch(url, robots=False).title\n"
        "@app.get('/async')\nasync def inside(url: str): return fetch(url, robots=False).title\n"
    )
    with LabServer.in_thread() as lab, served(text) as (_, url):
        for way in ("plain", "async"):
            answer = httpx.get(f"{url}/{way}", params={"url": lab.url(f"/ok?title={way}")})
            assert answer.json() == way
