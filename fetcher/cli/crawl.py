"""``fetcher crawl``: its flags, and how a flag is made. What the command does is in ``run.py``, which is slow to import.

It takes flags of curl and wget too, though they change nothing, or say what another flag of ours does: a command copied
from a browser as cURL runs as it is pasted. What would do something that we do not do is refused, in our words for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from fetcher.cli.commands import AliasedOption, GroupedCommand, OneOf, complete_files, complete_folders
from fetcher.cli.settings import Lines

__all__ = ["ALIASES", "FOREIGN", "command", "option", "take_over", "with_options"]

LINES = Lines()


F = TypeVar("F", bound=Callable[..., Any])

_COMPLETED = {
    **dict.fromkeys(
        [
            "output",
            "select_from",
            "since",
            "cookie",
            "cert",
            "key",
            "ca_bundle",
            "summary",
            "metrics",
            "config",
            "json",
            "html",
        ],
        complete_files,
    ),
    **dict.fromkeys(["job", "body", "bodies"], complete_folders),
}
"""Options whose value is a name of a file or a folder: a shell completes it."""

ALIASES = {
    "timeout": ("-m", "--max-time"),
    "retries": ("--retry",),
    "delay": ("--wait",),
    "head": ("-I", "--spider"),
    "quiet": ("-s", "--silent"),
    "ca_bundle": ("--cacert",),
    "insecure": ("--no-check-certificate",),
    "max_size": ("--max-filesize",),
    "max_redirects": ("--max-redirs", "--max-redirect"),
    "cookie": ("--load-cookies",),
}
"""Names of other programs for options of ours that mean the same there."""


class Method(click.ParamType):  # type: ignore[type-arg]  # generic in new click, plain in old
    """The only method that a list is fetched by."""

    name = "method"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take GET, and say what is there for others."""
        method = str(value).upper()
        if method != "GET":
            instead = "--head asks by HEAD" if method == "HEAD" else "nothing is sent to a server here"
            self.fail(f"{value}: must be GET: {instead}", param, ctx)
        return method


def _nothing(*names: str) -> click.Option:
    return click.Option(names, is_flag=True, hidden=True, expose_value=False)


FOREIGN = [
    _nothing("--compressed"),
    _nothing("-L", "--location"),
    _nothing("-G", "--get"),
    _nothing("--http1.1", "http1"),
    _nothing("-S", "--show-error"),
    click.Option(["-X", "--request"], hidden=True, expose_value=False, type=Method()),
    click.Option(["--url", "url_inputs"], hidden=True, multiple=True, metavar="URL"),
    click.Option(["--referer"], hidden=True, metavar="URL"),
]
"""Options that a crawl takes and that its help does not show."""


def take_over(context: click.Context) -> None:
    """Put what they say where our own options look for it."""
    params = context.params
    urls = params.pop("url_inputs", ())
    if urls:
        params["inputs"] = (*params["inputs"], *urls)
    referer = params.pop("referer", None)
    if referer:
        params["header"] = (*(params.get("header") or ()), f"Referer: {referer}")
        context.set_parameter_source("header", ParameterSource.COMMANDLINE)


def option(*names: str, **attributes: Any) -> Any:
    """Make an option that can be given as FETCHER_NAME too; its default is that of ``Config`` or of the command."""
    long = next(name for name in names if name.startswith("--")).split("/")[0].strip()
    attributes.setdefault("envvar", f"FETCHER_{long[2:].replace('-', '_').upper()}")
    if not attributes.get("is_flag") and "/" not in "".join(names) and not attributes.get("count"):
        attributes.setdefault("type", LINES)
    key = long[2:].replace("-", "_")
    if key in _COMPLETED:
        attributes.setdefault("shell_complete", _COMPLETED[key])
    return click.option(*names, cls=AliasedOption, aliases=ALIASES.get(key, ()), **attributes)


OPTIONS = [
    option("--from", "from", type=OneOf(["txt", "csv", "tsv", "jsonl", "parquet", "sqlite", "sitemap"]), help="Format of the lists, whatever their suffix; with it a URL is a list, too."),
    option("--url-column", metavar="NAME", help="Column or key with the URL (product.url is within product).  [default: url, or the one called link, href, website and the like]"),
    option("--delimiter", metavar="C", help="Between the cells of a CSV (tab for a tab).  [default: by the header line]"),
    option("--encoding", metavar="NAME", help="Of the lists (cp1252, utf-16).  [default: by the byte order mark, else UTF-8]"),
    option("--carry", metavar="A,B", help="Columns that come along into the records; '' for none.  [default: all]"),
    option("--demo", is_flag=True, envvar=None, help="Fetch the built-in site, served for the occasion on loopback."),
    option("-o", "--output", multiple=True, metavar="PATH", help="Where the records go, by suffix: .jsonl .csv .txt, each also .gz or .zst, .parquet, .sqlite or .warc.gz; with -f parquet also a folder (DIR/), with -f a prefix in a store (s3://BUCKET/PREFIX/, gs://, az://); repeatable.  [default: stdout, as text]"),
    option("-f", "--format", type=OneOf(["text", "jsonl", "csv", "parquet", "sqlite", "warc"], meant={"json": "did you mean jsonl, one JSON record a line?"}), help="Format of the output, whatever its suffix."),
    option("--columns", metavar="A,B", help="Columns of a record that are written, in this order; else all. Others are not computed."),
    option("--keep-headers", metavar="all|A,B", help="Keep these headers of each answer, in a column 'headers'; all but Set-Cookie, unless named."),
    option("--body", metavar="none|inline|DIR", help="Keep the bodies of pages: in a column 'body', or in files DIR/ab/SHA256.EXT, text compressed.  [default: none]"),
    option("--ordered", is_flag=True, help="Write the records in the order of the list: a slow host then holds up all."),
    option("--csv-bom", is_flag=True, help="Begin a CSV with a byte order mark, for Excel."),
    option("--part-rows", metavar="N", help="Rows of one part: in a folder of Parquet (else a million), in a store (else 100,000)."),
    option("--preview", metavar="N", help="In text output, the first N characters as well."),
    option("--job", metavar="DIR", help="Where the ledger of a crawl into files lies, which survives a crash.  [default: OUTPUT.job]"),
    option("--no-job", is_flag=True, help="Write no ledger: a run that ends early cannot be continued."),
    option("--fresh/--no-fresh", default=None, envvar="FETCHER_FRESH", help="Begin again: overwrite outputs and ledger."),
    option("--retry-failed", is_flag=True, help="Take up once more what failed in an earlier run of the job."),
    option("--retry-codes", multiple=True, metavar="CODES", help="The same for these codes or classes alone: dns,connect,tls,timeout,protocol,http,4xx,5xx,redirect,parse."),
    option("--verify", is_flag=True, help="Before going on, look at all of the outputs: by default at their last 64 MB."),
    option("--since", metavar="OUTPUT", help="Compare with an earlier output, or the newest of a pattern ('pages-*.parquet'): ask only for what has changed, and say what has (new, changed, unchanged, gone)."),
    option("--max-age", metavar="T", help="With --since: ask for no page that was confirmed less than this ago (20h, 7d)."),
    option("-c", "--concurrency", metavar="N", help="Requests at once.  [default: 100]"),
    option("--per-host", metavar="N", help="Requests to one host at once.  [default: 6]"),
    option("--delay", metavar="S", help="Seconds between two requests to one host, start to start.  [default: 0]"),
    option("--max-crawl-delay", metavar="S", help="Obey a Crawl-delay of robots.txt up to this.  [default: 30]"),
    option("--per-site", metavar="N", help="Requests at once to all hosts of one registrable domain.  [default: none]"),
    option("--per-address", metavar="N", help="Requests at once to all hosts behind one address.  [default: none]"),
    option("--robots/--no-robots", default=None, envvar="FETCHER_ROBOTS", help="Obey robots.txt.  [default: on]"),
    option("--rate", metavar="N/s", help="Requests per second (or N/m, N/h) for the whole run.  [default: none]"),
    option("--timeout", metavar="S", help="Seconds for one exchange, waits excluded.  [default: 30]"),
    option("--connect-timeout", metavar="S", help="Seconds to connect, DNS and TLS in it.  [default: 10]"),
    option("--read-timeout", metavar="S", help="Seconds between two reads.  [default: 15]"),
    option("--retries", metavar="N", help="Further tries of a row that failed in a way that may pass.  [default: 2]"),
    option("--retry-on", metavar="CODES", help="Statuses that are tried again.  [default: 408,425,429,500,502-504,520-524,527,529,530]"),
    option("--max-retry-after", metavar="S", help="Obey a Retry-After up to this; a longer one ends the host's rows.  [default: 300]"),
    option("--host-patience", metavar="S", help="Give up a host that serves nothing for this long.  [default: 60]"),
    option("--default-scheme", type=OneOf(["auto", "https", "http"]), help="Scheme of rows without one; auto: https, and http where that is not spoken.  [default: auto]"),
    option("--max-redirects", metavar="N", help="Redirects to follow; 0 takes the redirect as the answer.  [default: 10]"),
    option("--follow", is_flag=True, help="Follow links: what a[href] and area[href] of a page name is fetched too, each URL once."),
    option("--follow-css", metavar="CSS", help="Follow the links alone that match ('a.next' for the next page)."),
    option("--depth", metavar="N", help="Links to follow one after the other from a row of the list; none for no limit.  [default: none]"),
    option("--within", type=OneOf(["host", "site", "prefix"]), help="Where links may lead: the host of the row of the list, its registrable domain, or the folder of its URL.  [default: host]"),
    option("--include", multiple=True, metavar="PATTERN", help="Follow links to these URLs alone: a glob over the whole URL, or 're:' and a regular expression for a part of it; repeatable."),
    option("--exclude", multiple=True, metavar="PATTERN", help="Follow no links to these URLs; wins over --include; repeatable."),
    option("--max-pages", metavar="N", help="Follow links until there are so many rows, those of the list included.  [default: 10000]"),
    option("--max-pages-per-host", metavar="N", help="The same for each host.  [default: none]"),
    option("--follow-refresh", is_flag=True, help="Follow a page's Refresh header and meta refresh, as one more redirect."),
    option("--head", is_flag=True, help="Ask by HEAD, for status and headers alone; by GET where HEAD is refused (400, 403-406, 410, 501 or no answer)."),
    option("--max-size", metavar="SIZE", help="Largest body, decoded (500K, 10M).  [default: 10M]"),
    option("--truncate", is_flag=True, help="Keep what came of a larger body, marked, instead of failing."),
    option("--accept", metavar="CODES", help="Statuses that are pages (200-299,404 or 2xx); others are failures.  [default: 200-299]"),
    option("-A", "--user-agent", metavar="TEXT", help="Who we say we are."),
    option("-H", "--header", multiple=True, metavar="LINE", help="'Name: value', or '@HOST[:PORT] Name: value' for that host alone; repeatable."),
    option("-b", "--cookie", multiple=True, metavar="COOKIE", help="'@HOST name=value', or a cookies.txt; repeatable."),
    option("-u", "--user", multiple=True, metavar="CRED", help="'@HOST USER:PASSWORD' (Basic); repeatable."),
    option("-x", "--proxy", metavar="URL", help="HTTP proxy.  [default: HTTP_PROXY, HTTPS_PROXY, NO_PROXY]"),
    option("-k", "--insecure", is_flag=True, help="Do not verify TLS certificates."),
    option("--cert", multiple=True, metavar="'@HOST[:PORT] FILE'", help="Client certificate (PEM) for one host."),
    option("--key", metavar="FILE", help="Its private key, where that is in a file of its own."),
    option("--tls", type=OneOf(["default", "compatible"]), help="compatible: old servers too, as browsers do.  [default: default]"),
    option("--ca-bundle", metavar="FILE", help="PEM file of the authorities to trust.  [default: the system's]"),
    option("--private-network", type=OneOf(["allow", "listed", "deny"]), help="Private addresses: all, those of the list's own hosts, none.  [default: listed]"),
    option("--select", multiple=True, metavar="NAME=RULE", help="A field of each page: CSS, CSS@ATTR, CSS:TYPE, CSS{rules}, xpath:…, json:…; 'NAME[]=' takes all matches; repeatable."),
    option("--select-from", metavar="FILE", help="Rules by URL: a TOML file of [[pages]] with url and select."),
    option("--table", metavar="CSS", help="The rows of an HTML table, as the field 'table'."),
    option("--explode", metavar="NAME", help="A line of output for each item of this list or record (a table: 'table'), numbered in the column 'item'."),
    option("--with", "with", metavar="A,B", help="Columns that are read out of each page: meta,jsonld,links,images,text,lang; microdata,rdfa by an extra."),
    option("--text", type=OneOf(["body", "fast", "best"]), help="How --with text finds it, asked for by this too: all that is seen (else), or the main content."),
    option("--text-format", type=OneOf(["plain", "markdown"]), help="Of that text; markdown: of --text best.  [default: plain]"),
    option("--skip-when", metavar="WORDS", help="Keep no page that says one of these to robots: noai,noimageai,noindex,tdm-reservation."),
    option("--extract", metavar="MOD:FUNC", help="What a function of yours makes of each response becomes its data, in place of --select."),
    option("--middleware", multiple=True, metavar="MOD:FUNC", help="A function of yours around each request; repeatable."),
    option("--isolate", is_flag=True, help="Run the extractor in processes of its own, where it can end no run."),
    option("--parsers", metavar="N", help="Parse all pages in this many processes; auto: those that look dangerous alone.  [default: auto]"),
    option("--parse-timeout", metavar="S", help="Seconds for one page there.  [default: 5]"),
    option("--workers", metavar="auto|N|ray[:N]", help="Processes that share the list, a site to one of them each. ray: on the machines of a Ray cluster, one a core, or N in all. auto: one for fewer than 5,000 rows or 8 sites, for a list from a pipe or the network, and with --extract, --middleware, --ordered or --per-address; else one a core, at most 8, with 150 MB each.  [default: auto]"),
    option("--ray-address", metavar="A", help="The cluster of --workers ray: HOST:PORT, or auto for the one that this machine is of; else RAY_ADDRESS, else Ray is started here."),
    option("--dedupe", is_flag=True, help="Fetch each distinct URL once."),
    option("--limit", metavar="N", help="The first N rows are the input."),
    option("--shard", metavar="I/N", help="Fetch the rows alone whose sites (registrable domains) fall to share I of N, from 1/N to N/N: a run each on machines of their own, each with outputs of its own. A hop to another site is followed, so the limits of a host hold within a shard.  [default: none]"),
    option("--time-limit", metavar="S", help="Stop after this long (30, 10m, 2h)."),
    option("--dry-run", is_flag=True, envvar=None, help="Fetch nothing: say what would be done, and the least time it takes."),
    option("--max-failed", metavar="N|N%", help="Exit 3 when more rows than this failed."),
    option("--progress/--no-progress", default=None, envvar="FETCHER_PROGRESS", help="Progress on stderr.  [default: on a terminal]"),
    option("-q", "--quiet", is_flag=True, help="No progress, no summary: only data and errors."),
    option("-v", "--verbose", count=True, help="Tell of parked hosts and retries; -vv of everything."),
    option("--log-format", type=OneOf(["text", "json"]), help="How -v tells it.  [default: text]"),
    option("--summary", metavar="PATH", help="Write the final counts as JSON ('-' is stdout)."),
    option("--metrics", metavar="[HOST:]PORT|FILE", help="Tell Prometheus how it goes: at http://127.0.0.1:PORT/metrics, or in a file every 10 s; an extra.  [default: none]"),
    option("--live", is_flag=True, help="A page that shows the run while it goes on, at a free port of this machine: its address is told on stderr."),
    option("--live-at", metavar="[HOST:]PORT", help="Where that page is served.  [default: 127.0.0.1, a free port]"),
    option("--live-host", multiple=True, metavar="NAME", help="A further host name by which that page may be asked for (behind a proxy, or on a network); repeatable."),
    option("--live-control", is_flag=True, help="Let that page stop, pause and limit the run where others than this machine reach it."),
    option("--open", is_flag=True, help="Open that page in the browser."),
    option("--config", metavar="FILE", help="Read settings from a TOML file.  [default: ./fetcher.toml, else the XDG one]"),
]  # fmt: skip


def with_options(options: Sequence[Any]) -> Callable[[F], F]:
    """Return a decorator that gives a command its options, in their order."""

    def decorate(function: F) -> F:
        for each in reversed(options):
            function = each(function)
        return function

    return decorate


@click.command("crawl", cls=GroupedCommand, foreign=FOREIGN, short_help="Fetch a list of URLs and write what came.")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...", shell_complete=complete_files)
@with_options(OPTIONS)
@click.pass_context
def command(context: click.Context, /, config: str | None, demo: bool, **_: Any) -> None:
    """Fetch every URL of the INPUTs: files, '-' for stdin, or URLs.

    Lists are .txt, .csv, .tsv or .jsonl, each also .gz or .zst, .parquet, .sqlite, outputs of earlier runs, and
    sitemaps (--from sitemap). Prints 'URL -> LENGTH' for each page, or writes the records where -o says. Data goes to
    stdout, everything else to stderr.

    \b
      fetcher crawl urls.txt
      fetcher crawl urls.csv --url-column link -o pages.jsonl.gz
      fetcher crawl --from sitemap example.com -o pages.jsonl
      fetcher crawl --follow https://docs.example.com/ -o docs.jsonl
      fetcher crawl example.com --select 'headline=h1' -f jsonl

    'fetcher help FLAG' says more of a flag, 'fetcher help CODE' of what went wrong.
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    from fetcher.cli.run import crawl
    from fetcher.cli.settings import gather

    take_over(context)
    context.exit(crawl(list(context.params["inputs"]), gather(context, config), demo=demo))
