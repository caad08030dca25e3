"""The house: who may import whom, what may be imported where, how large functions get, and what the door shows.

Each rule is a function from sources to the list of its breaches, so that a test can show that it sees them.
"""

from __future__ import annotations

import ast
import importlib
import io
import pickle
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import fetcher
from fetcher import errors, model
from fetcher.config import OPTIONS, POLICIES, Config
from fetcher.errors import RETRYABLE, FetcherError, FetchError, StatusError
from fetcher.model import Discovery, Failure, FoundLinks, Message, Page, Request, Response, RetryDetails
from fetcher.request_state import InFlight

ROOT = Path(__file__).resolve().parents[1]

ORDER = (
    ("errors",),
    ("charset", "urls", "spawn", "event_loop", "files", "sqlite_files", "compression", "terminal", "topics"),
    ("record", "buckets", "store"),
    ("model",),
    ("stats",),
    ("refresh",),
    ("config",),
    ("hosts",),
    ("request_state",),
    ("frontier", "middleware", "transport", "page", "sources", "sinks"),
    ("intake", "dispatcher", "stored", "drawing"),
    ("found",),
    ("pipeline",),
    ("lists", "parallel", "worker_count"),
    ("client",),
    ("extraction",),
    ("extraction_workers",),
    ("job", "demo"),
    ("report",),
    ("bench", "live"),
    ("cli",),
    ("__main__",),
)
"""The rooms, from the ground up: a room stands on those above it in this table."""

NEIGHBOURS: set[tuple[str, str]] = {("sources", "sinks")}
"""Rooms on one floor of which the first may stand on the second."""

CONFINED = {
    "aiohttp": ["fetcher.transport.*"],
    "aiohttp.web": ["fetcher.demo.server.", "fetcher.live.server."],
    "tenacity": ["fetcher.middleware.retry.", "fetcher.store.retrying."],
    "fsspec": ["fetcher.store.*"],
    "prometheus_client": ["fetcher.report.metrics."],
    "ray": ["fetcher.parallel.ray_gateway."],
    "xxhash": ["fetcher.page.parse."],
    "selectolax": ["fetcher.page.*"],
    "click": ["fetcher.cli.*"],
    "pyarrow": ["fetcher.sinks.parquet.", "fetcher.sources.parquet."],
}
"""A library, and the rooms it is imported in (patterns of dotted names): there it could be changed for another."""

EXPORTS = [
    "Stats", "Config", "ConfigError", "Exchange", "Extractor", "Failure", "FetchError", "Fetcher", "FetcherError",
    "InFlight", "Job", "JobLocked", "LedgerError", "Middleware", "Outcome", "Page", "Request", "Response", "RetryDetails", "Sink",
    "SinkError", "Skipped", "SourceError", "StatusError", "__version__", "fetch", "fetch_all", "follow", "open_sink", "parse", "read", "records",
]  # fmt: skip
"""The public names. Adding one is a promise; taking one away breaks somebody's program."""

TOP_LEVEL = {
    "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "config.toml",
    "fetcher", "tests", "examples",
}  # fmt: skip
MADE_BY_TOOLS = {"build", "dist", "__pycache__", "PKG-INFO"}


class Module(NamedTuple):
    """A source file: its dotted name, whether it is a package's ``__init__``, and what is in it."""

    name: str
    package: bool
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parse(self.text)

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else "fetcher"


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


@pytest.fixture(autouse=True, scope="module")
def forgotten() -> Iterator[None]:
    """Let go of the trees in the end: a million objects that every later collection would look at."""
    yield
    _parse.cache_clear()


def load(folder: str) -> list[Module]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = parts[-1] == "__init__"
        found.append(Module(".".join(parts[:-1] if package else parts), package, path.read_text(encoding="utf-8")))
    return found


HOUSE = load("fetcher")
SHOWN = HOUSE + load("examples")
EVERYTHING = SHOWN + load("tests")


# Imports


class Import(NamedTuple):
    """One name that one module takes from another. ``name`` is empty where the module itself is taken."""

    line: int
    module: str
    name: str


def imports_of(module: Module) -> Iterator[Import]:
    """Every import, those of functions and of TYPE_CHECKING too, relative ones made absolute."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")
                kept = parts[: len(parts) - node.level + (1 if module.package else 0)]
                base = ".".join([*kept, base] if base else kept)
            for alias in node.names:
                yield Import(node.lineno, base, alias.name)


def edges_of(modules: Iterable[Module]) -> Iterator[tuple[Module, Import, str]]:
    """Each import of one of the modules by another, with the dotted name of what is imported."""
    modules = list(modules)
    names = {module.name for module in modules}
    for module in modules:
        if module.name == "fetcher":
            continue  # the façade
        for taken in imports_of(module):
            inner = f"{taken.module}.{taken.name}"
            target = inner if inner in names else taken.module
            if target.partition(".")[0] == "fetcher":
                yield module, taken, target


def upward_imports(modules: Iterable[Module]) -> list[str]:
    floors = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
    breaches = []
    for module, taken, target in edges_of(modules):
        if target == "fetcher":
            if taken.name != "__version__":
                breaches.append(f"{module.name}:{taken.line} takes {taken.name or 'everything'} from the façade")
            continue
        room = target.split(".")[1]
        unknown = {module.room, room} - set(floors)
        if unknown:
            breaches.append(f"{module.name}:{taken.line} {', '.join(sorted(unknown))} is not in the table")
        elif room != module.room and (module.room, room) not in NEIGHBOURS and floors[module.room] <= floors[room]:
            breaches.append(f"{module.name}:{taken.line} imports {target}")
    return breaches


def cycles(modules: Iterable[Module]) -> list[set[str]]:
    """The import cycles of more than one module. Importing ``a.b`` from outside ``a`` imports ``a`` too."""
    modules = list(modules)
    graph: dict[str, set[str]] = {module.name: set() for module in modules}
    for module, _, target in edges_of(modules):
        graph[module.name].update({target, *_packages(target) - _packages(module.name)} & graph.keys() - {module.name})
    reached = {name: _reachable(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        ring = {other for other in reached[name] if name in reached[other]}
        if ring and ring not in found:
            found.append(ring)
    return found


def _packages(name: str) -> set[str]:
    """The packages above a module, and itself."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(2, len(parts) + 1)}


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in graph[todo.pop()] - seen:
            seen.add(name)
            todo.append(name)
    return seen


def strays(modules: Iterable[Module]) -> list[str]:
    """Imports of a confined library outside of its rooms."""
    breaches = []
    for module in modules:
        for taken in imports_of(module):
            whole = f"{taken.module}.{taken.name}."
            library = "aiohttp.web" if whole.startswith("aiohttp.web.") else whole.partition(".")[0]
            homes = CONFINED.get(library, ["*"])
            if not any(fnmatchcase(f"{module.name}.", home) for home in homes):
                breaches.append(f"{module.name}:{taken.line} imports {library}")
    return breaches


def made(name: str, text: str) -> Module:
    return Module(name, package=False, text=text)


def test_dependencies_point_one_way() -> None:
    assert "\n".join(upward_imports(HOUSE)) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fetcher.model", "from fetcher.config import Config"),
        ("fetcher.config", "def late():\n    from fetcher.client import Fetcher"),
        ("fetcher.urls", "if TYPE_CHECKING:\n    import fetcher.cli.run"),
        ("fetcher.hosts.slots", "from ..transport import session"),
        ("fetcher.page.parse", "from fetcher import Config"),
        ("fetcher.page.parse", "import fetcher"),
        ("fetcher.sinks.text", "from fetcher.sources import read"),
        ("fetcher.novelty", "from fetcher.errors import FetchError"),
        ("fetcher.client", "from fetcher.cli.exits import FAILED"),
    ],
)
def test_an_import_that_points_up_is_seen(name: str, text: str) -> None:
    assert len(upward_imports([made(name, text)])) == 1


def test_every_room_of_the_table_exists() -> None:
    assert {room for rooms in ORDER for room in rooms} == {module.room for module in HOUSE} - {"fetcher"}


def test_the_largest_import_cycle_is_one_module() -> None:
    assert cycles(HOUSE) == []


def test_a_cycle_is_seen() -> None:
    two = [
        made("fetcher.sinks.a", "from fetcher.sinks.b import x"),
        made("fetcher.sinks.b", "def late():\n    from . import a"),
        made("fetcher.sinks.c", "import fetcher.sinks.a"),
    ]
    assert cycles(two) == [{"fetcher.sinks.a", "fetcher.sinks.b"}]


def test_a_cycle_through_a_package_is_seen() -> None:
    two = [
        Module("fetcher.sinks", package=True, text="from fetcher.urls import parse"),
        made("fetcher.sinks.a", ""),
        made("fetcher.urls", "from fetcher.sinks.a import x"),
    ]
    assert cycles(two) == [{"fetcher.sinks", "fetcher.urls"}]


def test_libraries_stay_in_their_rooms() -> None:
    assert "\n".join(strays(HOUSE)) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fetcher.client", "import aiohttp"),
        ("fetcher.demo.server", "from aiohttp import ClientSession"),
        ("fetcher.transport.session", "from aiohttp import web"),
        ("fetcher.middleware.accept", "def late():\n    import tenacity"),
        ("fetcher.sinks.text", "from selectolax.lexbor import LexborHTMLParser"),
        ("fetcher.client", "from click.core import Context"),
        ("fetcher.report.summary", "import click"),
        ("fetcher.pages", "import selectolax"),
    ],
)
def test_a_stray_import_is_seen(name: str, text: str) -> None:
    assert len(strays([made(name, text)])) == 1


def test_no_name_is_imported_behind_the_tables_back() -> None:
    """``import_module`` takes a table of our own modules, or an optional library, by a constant or a loop over them.

    ``cli.import_string`` imports what the user names.
    """
    users = {
        module.name
        for module in HOUSE
        if any(
            isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__")
            for node in ast.walk(module.tree)
        )
    }
    assert users <= {
        "fetcher", "fetcher.cli.commands", "fetcher.cli.import_string", "fetcher.compression",
    }  # fmt: skip


# Names and sizes

VAGUE_MODULES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
VAGUE_CLASS = re.compile(r"(Manager|Helper|Helpers|Util|Utils|Context|Impl)$")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def size_of(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def public_methods(node: ast.ClassDef) -> list[str]:
    return [item.name for item in node.body if isinstance(item, Function) and not item.name.startswith("_")]


def oversized(modules: Iterable[Module]) -> list[str]:
    breaches = []
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, Function) and size_of(node) > 50:
                breaches.append(f"{module.name}:{node.lineno} {node.name}: {size_of(node)} lines")
            if isinstance(node, ast.ClassDef) and len(public_methods(node)) > 12:
                breaches.append(f"{module.name}:{node.lineno} {node.name}: {len(public_methods(node))} public methods")
    return breaches


def vague(modules: Iterable[Module]) -> list[str]:
    breaches = [module.name for module in modules if VAGUE_MODULES & set(module.name.split("."))]
    for module in modules:
        if not any(map(VAGUE_CLASS.search, re.findall(r"\bclass\s+(\w+)", module.text))):
            continue  # it need not be parsed
        classes = (node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))
        breaches += [f"{module.name}: {name}" for name in classes if VAGUE_CLASS.search(name)]
    return breaches


def used_twice(modules: Iterable[Module]) -> dict[str, list[str]]:
    """The class names that mean two things, each with the modules that have one."""
    homes: dict[str, list[str]] = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module.name)
    return {name: found for name, found in homes.items() if len(found) > 1}


def test_a_class_name_means_one_thing() -> None:
    house = [*HOUSE, *(module for module in EVERYTHING if module.name.startswith("tests.lab"))]
    assert used_twice(house) == {}


def test_a_class_name_that_means_two_things_is_seen() -> None:
    twice = [made("fetcher.a", "class A: ..."), made("fetcher.b", "def f():\n    class A: ...")]
    assert used_twice(twice) == {"A": ["fetcher.a", "fetcher.b"]}


def test_functions_and_classes_are_not_too_large() -> None:
    assert "\n".join(oversized(SHOWN)) == ""


def test_names_say_something() -> None:
    assert "\n".join(vague(EVERYTHING)) == ""


def test_what_is_too_large_or_vague_is_seen() -> None:
    long = "\n".join(["async def long():", *(["    pass"] * 50), "class Wide:"])
    long += "".join(f"\n    def m{n}(self): ..." for n in range(13))
    assert len(oversized([made("fetcher.long", long)])) == 2
    assert vague([made("fetcher.cli.utils", "class _RetryManager: ...")]) == [
        "fetcher.cli.utils",
        "fetcher.cli.utils: _RetryManager",
    ]


# Comments


def comments_with(words: str, module: Module) -> Iterator[tuple[int, str]]:
    """Each comment in which a pattern is found, with its line. Only a module that has it is taken apart, for that is slow."""
    if not re.search(words, module.text):
        return
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and re.search(words, token.string):
            yield token.start[0], token.string


REASON = r"\s+(?:#|-|–|\()\s*\S+ .*"
EXCUSES = {
    "noqa": re.compile(rf"# noqa: [A-Z]+[0-9]+(?:, ?[A-Z]+[0-9]+)*{REASON}"),
    "type: ignore": re.compile(rf"# type: ignore\[[a-z, -]+\]{REASON}"),
}


def bare_excuses(modules: Iterable[Module]) -> list[str]:
    """Each ``noqa`` and ``type: ignore`` without its code or its reason."""
    return [
        f"{module.name}:{line} {comment}"
        for module in modules
        for word, excuse in EXCUSES.items()
        for line, comment in comments_with(rf"(?i)#\s*(?:ruff:\s*)?{word}", module)
        if not excuse.search(comment)
    ]


def unfinished(modules: Iterable[Module]) -> list[str]:
    """What somebody meant to come back to."""
    breaches = []
    for module in modules:
        for line, comment in comments_with(r"\b(TODO|FIXME|XXX|HACK)\b", module):
            breaches.append(f"{module.name}:{line} {comment}")
        for node in ast.walk(module.tree) if "NotImplemented" in module.text else ():
            if isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node):
                breaches.append(f"{module.name}:{node.lineno} {ast.unparse(node)}")
    return breaches


def test_every_excuse_has_its_code_and_reason() -> None:
    assert "\n".join(bare_excuses(EVERYTHING)) == ""


def test_nothing_is_left_for_later() -> None:
    assert "\n".join(unfinished(EVERYTHING)) == ""


def test_an_excuse_without_a_reason_is_seen() -> None:
    bare = ["noqa", "noqa: S101", "type: ignore", "type: ignore[misc]", "type: ignore  # it is fine", "noqa: S101 -"]
    good = ["noqa: S101 - a reason", "noqa: S101, D100  (two of them)", "type: ignore[arg-type]  # duck-typed here"]
    assert len(bare_excuses([made("fetcher.x", "\n".join(f"pass  # {text}" for text in bare))])) == len(bare)
    assert bare_excuses([made("fetcher.x", "\n".join(f"pass  # {text}" for text in good))]) == []


def test_what_is_left_for_later_is_seen() -> None:
    later = "x = 1  # TODO: two\ndef stub():\n    raise NotImplementedError('soon')"
    assert len(unfinished([made("fetcher.x", later)])) == 2


def undocumented(modules: Iterable[Module]) -> list[str]:
    """Modules, and their public classes, functions and methods, that say nothing of themselves."""
    breaches = []
    for module in modules:
        if not ast.get_docstring(module.tree):
            breaches.append(module.name)
        todo: list[tuple[str, ast.AST]] = [(module.name, module.tree)]
        while todo:
            path, parent = todo.pop()
            for node in getattr(parent, "body", ()):
                if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                    inherits = any("@override" in f"@{ast.unparse(mark)}" for mark in node.decorator_list)
                    if not ast.get_docstring(node) and not inherits:
                        breaches.append(f"{path}.{node.name}")
                    if isinstance(node, ast.ClassDef):
                        todo.append((f"{path}.{node.name}", node))
    return breaches


def test_every_public_name_is_documented() -> None:
    assert "\n".join(undocumented(SHOWN)) == ""


def test_an_undocumented_name_is_seen() -> None:
    text = (
        '"""Owns x."""\nclass Open:\n    """Is."""\n    def method(self): ...\n    def _own(self): ...\ndef _own(): ...'
    )
    assert undocumented([made("fetcher.x", text), made("fetcher.y", "")]) == ["fetcher.x.Open.method", "fetcher.y"]


# The door


def test_the_public_names_are_frozen() -> None:
    assert sorted(fetcher.__all__) == sorted(EXPORTS)
    assert len(set(fetcher.__all__)) == len(fetcher.__all__)


@pytest.mark.parametrize("name", EXPORTS)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(fetcher, name)
    assert name in dir(fetcher)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", value)
        return
    if isinstance(value, type) or getattr(value, "__module__", "").startswith("fetcher"):
        assert value.__doc__
        return
    home = next(module for module in HOUSE if module.name == "fetcher.model")  # an alias: its text stands below it
    body = home.tree.body
    place = next(
        n for n, node in enumerate(body) if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name
    )
    below = body[place + 1] if place + 1 < len(body) else None
    assert isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant), f"{name} has no text below it"


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    facade = next(module for module in HOUSE if module.name == "fetcher")
    typed = {(taken.module, taken.name) for taken in imports_of(facade) if taken.module.startswith("fetcher.")}
    loaded = {(home, name) for home, names in fetcher._HOMES.items() for name in names}
    assert typed == loaded
    for home, name in loaded:
        assert getattr(importlib.import_module(home), name) is getattr(fetcher, name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fetcher' has no attribute 'Fetchr'"):
        _ = fetcher.Fetchr  # type: ignore[attr-defined]  # that there is none is the point
    assert not hasattr(fetcher, "__wrapped__")


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after ``code``."""
    text = f"{code}\nimport sys\nprint('\\n'.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import fetcher", "from fetcher import Fetcher, Config", "from fetcher import *"])
def test_the_library_needs_no_command_line(code: str) -> None:
    assert "click" not in loaded_after(code)


def test_the_bare_import_loads_nothing() -> None:
    own = loaded_after("import fetcher") - loaded_after("pass")
    assert not {"aiohttp", "selectolax", "tenacity", "msgspec", "asyncio"} & own


@pytest.mark.parametrize("arguments", [["--version"], ["-h"], ["completion", "zsh"], ["crwal"]])
def test_what_needs_no_network_loads_none(arguments: list[str]) -> None:
    code = (
        f"import sys\nsys.argv = ['fetcher', *{arguments!r}]\n"
        "from fetcher.cli.main import main\ntry:\n    main()\nexcept SystemExit:\n    print()"
    )
    loaded = loaded_after(code)
    assert not {"aiohttp", "selectolax", "tenacity"} & loaded
    assert "click" in loaded


def test_the_top_level_has_nothing_but_what_belongs_there() -> None:
    entries = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    made_by_tools = {name for name in entries if name in MADE_BY_TOOLS or name.endswith(".egg-info")}
    assert entries - made_by_tools == TOP_LEVEL


# The values and errors

REQUEST = Request(7, "https://a.example/ö?", (("X-Team", "crawl"),), {"sku": "1", "price": 2.5}, tag=("mine", 1))
VALUES = [
    Discovery(2, 1, "http://h.example/", "http://h.example/a", leads=False),
    FoundLinks("http://h.example/a\nhttp://h.example/b", 3, outside=True, guarded=True),
    REQUEST,
    Response(REQUEST, "https://b.example/", 200, (("set-cookie", "a=1"), ("set-cookie", "b=2")), b"\xff\0", 2, ("u",)),
    Page(REQUEST, "https://b.example/", 200, 5, 6, "text/html", "utf-8", "t\u202e", 3, {"h": ["1"]}, ("u",), body=b"x"),
    Page(REQUEST, "https://b.example/", 200),
    Message("https://a.example/", 1.5, b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xff", "::1", "length"),
    InFlight(7, "https://a.example/", "reading", 1.5, 0.5, 1),
    Config(),
    Config.of(
        per_host=2, rate="5/s", accept="2xx,404", header=["X: 1", "@a.example Cookie: s=1"], proxy="127.0.0.1:3128",
        no_proxy="*.b.example", select=["h=h1"], max_failed="5%", time_limit=9, insecure=True,
    ),
]  # fmt: skip
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_pickle(value: Any, protocol: int) -> None:
    back = pickle.loads(pickle.dumps(value, protocol))
    assert type(back) is type(value)
    assert back == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_and_slotted(value: Any) -> None:
    with pytest.raises(AttributeError):
        setattr(value, type(value).__struct_fields__[0], None)
    assert not hasattr(value, "__dict__")


def test_every_value_of_the_model_is_tried() -> None:
    structs = [thing for thing in vars(model).values() if isinstance(thing, type) and issubclass(thing, msgspec.Struct)]
    tried = {type(value) for value in VALUES} | {Failure, RetryDetails, msgspec.Struct}  # an error equals itself alone
    assert set(structs) <= tried
    assert {policy for policy, _, _ in OPTIONS.values()} - {""} == set(POLICIES)


def all_errors() -> list[type[FetcherError]]:
    for module in HOUSE:
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[FetcherError]] = [FetcherError]
    for kind in found:
        found += [
            child for child in kind.__subclasses__() if child not in found and child.__module__.startswith("fetcher.")
        ]
    return found


def each_error() -> list[FetcherError]:
    """One of every class with every one of its codes."""
    made: list[FetcherError] = []
    for kind in all_errors():
        if issubclass(kind, StatusError):
            made += [kind(503, "Service Unavailable\x1b", 12.5), kind(404)]
        elif issubclass(kind, FetchError):
            made += [kind(code, f"what {code} means: {kind!r}") for code in sorted(kind.codes)]
            made += [kind("novel", "")] if not kind.codes else []
        else:
            made += [kind("a.toml: concurency: what?"), kind()]
    return made


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_error_pickles_with_every_code(protocol: int) -> None:
    for error in each_error():
        back = pickle.loads(pickle.dumps(error, protocol))
        assert type(back) is type(error)
        assert back.args == error.args
        assert str(back) == str(error)
        for name in ("code", "message", "url", "retryable", "status", "retry_after"):
            assert getattr(back, name, "none") == getattr(error, name, "none")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_failures_pickle_with_every_error(protocol: int) -> None:
    for error in each_error():
        if isinstance(error, FetchError):
            failure = Failure(REQUEST, error, "https://b.example/", 503, 9, ("u",), 0.5, 1.5, 2, 1e9)
            back = pickle.loads(pickle.dumps(failure, protocol))
            for field in Failure.__struct_fields__:
                if field != "error":
                    assert getattr(back, field) == getattr(failure, field)
            assert (type(back.error), back.error.args) == (type(error), error.args)


def drawn_tree() -> dict[str, tuple[str, set[str]]]:
    """The tree in the docstring of ``errors``: class -> (parent, codes)."""
    found: dict[str, tuple[str, set[str]]] = {"FetcherError": ("Exception", set())}
    above = ["FetcherError"]
    for line in (errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    ((?:[│ ]   )*)[├└]── (\w+)(?:\(\w+\))?\s+(.*)", line):
            depth = len(match[1]) // 4
            above[depth + 1 :] = [match[2]]
            found[match[2]] = (above[depth], {text.strip() for text in match[3].split("·")})
    return found


def test_the_tree_that_is_drawn_is_the_tree() -> None:
    drawn = drawn_tree()
    kinds = {kind.__name__: kind for kind in all_errors()}
    assert set(drawn) == set(kinds)
    for name, (parent, codes) in drawn.items():
        assert kinds[name].__mro__[1].__name__ == parent
        kind = kinds[name]
        if issubclass(kind, FetchError) and kind.codes:
            assert set(kind.codes) == codes, name


def test_a_code_belongs_to_one_class_and_what_is_retryable_exists() -> None:
    kinds = [kind for kind in all_errors() if issubclass(kind, FetchError)]
    codes = [code for kind in kinds if kind.__bases__ == (FetchError,) for code in kind.codes]
    assert len(codes) == len(set(codes))
    for kind in kinds:  # of a class below another the code is that one's too
        first = kind.__bases__[0]
        assert first in (FetcherError, FetchError) or (issubclass(first, FetchError) and kind.codes <= first.codes)
    assert all(code in codes or re.fullmatch(r"http_[45]\d\d", code) for code in RETRYABLE)
