"""The pages of the built-in site: a coffee roaster's and bookseller's shop, drawn from a seed.

The same number of pages and the same seed make the same bytes in every process. A page's ``text`` is what a
browser reads out of those bytes: what a legacy charset lacks stands there as a character reference already.
"""

from __future__ import annotations

import functools
import json
import random
from html import escape
from types import MappingProxyType

import msgspec

from fetcher.bench.phrases import TONGUES, Tongue

__all__ = ["Document", "notice", "stock"]

CATEGORIES = (
    "espresso", "filter", "decaf", "single-origin", "blends", "novels",
    "poetry", "letterpress", "kettles", "grinders", "gifts", "seasonal",
)  # fmt: skip
ORIGINS = ("sidamo", "huila", "kirinyaga", "antigua", "mandheling", "tarrazu", "yirgacheffe", "nyeri", "cauca")

VARIANTS = (
    ("en", "utf-8", "header"), ("fr", "windows-1252", "header"), ("en", "utf-8", "both"), ("ja", "shift_jis", "meta"),
    ("de", "utf-8", "header"), ("pl", "iso-8859-2", "meta"), ("en", "utf-8", "meta"), ("ru", "koi8-r", "header"),
    ("fr", "utf-8", "both"), ("en", "windows-1252", "meta"), ("ja", "utf-8", "header"), ("ru", "koi8-r", "meta"),
    ("en", "utf-8", "header"), ("pl", "iso-8859-2", "header"), ("ru", "utf-8", "meta"), ("de", "windows-1252", "meta"),
    ("en", "utf-8", "both"), ("ja", "shift_jis", "header"), ("pl", "utf-8", "header"),
)  # fmt: skip
"""Tongue, charset and where the charset is declared, dealt to the products in turn."""

WEB_CODECS = {"shift_jis": "cp932"}
"""Where the WHATWG Encoding Standard means another table than Python by the same name."""

CODINGS = (None, "gzip", None, "br", "gzip")
PARAGRAPHS = (4, 10, 24, 50, 110)
PARAGRAPH_WEIGHTS = (30, 35, 22, 10, 3)

_FRAME = """<!DOCTYPE html>
<html lang="{lang}">
<head>
{meta}<title>{title}</title>
<style>body {{ font: 1rem/1.5 Georgia, serif; margin: 2rem auto; max-width: 44rem }}</style>
</head>
<body>
<nav>{nav}</nav>
<main>
{main}
</main>
<footer><p>{shop}</p>{foot}</footer>
</body>
</html>
"""


class Document(msgspec.Struct, frozen=True):
    """A page as it should be read: its text, and how it is to be put on the wire.

    ``coding`` is the content coding it is sent with to those who accept it; ``links`` counts ``a[href]``.
    """

    title: str
    text: str
    links: int = 0
    charset: str = "utf-8"
    content_type: str = "text/html; charset=utf-8"
    coding: str | None = None

    @property
    def body(self) -> bytes:
        """The text in its charset, before any content coding."""
        return self.text.encode(self.charset)


class _Product(msgspec.Struct, frozen=True):
    path: str
    name: str
    price: str
    image: str
    tongue: Tongue
    charset: str
    declared: str
    coding: str | None


@functools.lru_cache(maxsize=8)
def stock(pages: int, seed: int) -> MappingProxyType[str, Document]:
    """Draw the shop: ``pages`` documents by their path, the home page first, then categories and products."""
    rng = random.Random(seed)  # noqa: S311 - a page must come out the same again, which no secret may
    categories = tuple(f"/categories/{name}" for name in CATEGORIES[: min(len(CATEGORIES), -(-(pages - 1) // 12))])
    products = [_draw(rng, number) for number in range(1, pages - len(categories))]
    documents = {"/": _home(rng, categories, products)}
    for place, path in enumerate(categories):
        documents[path] = _category(rng, categories, path, products[place :: len(categories)])
    for product in products:
        documents[product.path] = _product_page(rng, categories, product, products)
    return MappingProxyType(documents)


def notice(title: str, words: str) -> Document:
    """Write a short page that says one thing."""
    main = f'<h1 class="name">{escape(title)}</h1>\n<p>{escape(words)}</p>'
    return _page(TONGUES["en"], title, main, ())


def _draw(rng: random.Random, number: int) -> _Product:
    code, charset, declared = VARIANTS[number % len(VARIANTS)]
    tongue = TONGUES[code]
    cents = rng.randrange(650, 9900, 5)
    slug = f"{rng.choice(ORIGINS)}-{number}"
    return _Product(
        path=f"/coffee/{slug}",
        name=f"{rng.choice(tongue.coffees)} {number}",
        price=tongue.price.format(*divmod(cents, 100)),
        image=f"/img/{slug}.png",
        tongue=tongue,
        charset=charset,
        declared=declared,
        coding=CODINGS[number % len(CODINGS)],
    )


def _home(rng: random.Random, categories: tuple[str, ...], products: list[_Product]) -> Document:
    tongue = TONGUES["en"]
    window = rng.sample(products, min(24, len(products)))
    main = [
        f'<h1 class="name">{escape(tongue.shop)}</h1>',
        '<img class="hero" src="/img/shop.png" alt="">',
        *_paragraphs(rng, tongue, 3),
        _shelf(window),
    ]
    return _page(tongue, "Coffee and books by post", "\n".join(main), categories, coding="gzip")


def _category(rng: random.Random, categories: tuple[str, ...], path: str, products: list[_Product]) -> Document:
    tongue = TONGUES["en"]
    name = path.rpartition("/")[2].replace("-", " ").capitalize()
    main = [
        f'<h1 class="name">{name}</h1>',
        f'<img class="hero" src="/img/{path.rpartition("/")[2]}.png" alt="">',
        *_paragraphs(rng, tongue, 2),
        f"<p>{_link(path + '?sort=price', 'By price')} {_link('#shelf', 'To the shelf')}</p>",
        _shelf(products[:60]),
    ]
    return _page(tongue, name, "\n".join(main), categories)


def _product_page(
    rng: random.Random, categories: tuple[str, ...], product: _Product, products: list[_Product]
) -> Document:
    tongue = product.tongue
    basket, voices, others, _ = tongue.labels
    tags = "".join(f'<li class="tag">{escape(tag)}</li>' for tag in rng.sample(tongue.tags, rng.randint(1, 3)))
    facts = {"@context": "https://schema.org", "@type": "Product", "name": product.name, "sku": product.path[-4:]}
    amount = rng.choices(PARAGRAPHS, PARAGRAPH_WEIGHTS)[0]
    quotes = rng.choices(tongue.sentences, k=rng.randint(0, 12))
    main = [
        f'<script type="application/ld+json">{json.dumps(facts)}</script>',
        f'<h1 class="name">{escape(product.name)}</h1>',
        f'<img class="hero" src="{product.image}" alt="{escape(product.name)}">',
        f'<p><span class="price">{product.price}</span> <button>{escape(basket)}</button></p>',
        f'<ul class="tags">{tags}</ul>',
        '<div class="description">',
        *_paragraphs(rng, tongue, amount),
        "</div>",
        f"<h2>{escape(voices)}</h2>",
        *(f"<blockquote>{escape(quote)}</blockquote>" for quote in quotes),
        f"<h2>{escape(others)}</h2>",
        _shelf(rng.sample(products, min(rng.randint(3, 8), len(products)))),
    ]
    return _page(
        tongue,
        product.name,
        "\n".join(main),
        categories,
        charset=product.charset,
        declared=product.declared,
        coding=product.coding,
    )


def _page(
    tongue: Tongue,
    title: str,
    main: str,
    categories: tuple[str, ...],
    *,
    charset: str = "utf-8",
    declared: str = "both",
    coding: str | None = None,
) -> Document:
    title = f"{title} | {tongue.shop}"
    nav = [_link(path, path.rpartition("/")[2].replace("-", " ").capitalize()) for path in categories]
    text = _FRAME.format(
        lang=tongue.code,
        meta="" if declared == "header" else _meta(charset),
        title=escape(title),
        nav=" ".join([_link("/", tongue.labels[3]), *nav]),
        main=main,
        shop=escape(tongue.shop),
        foot=_link("mailto:post@shop.example", "post@shop.example"),
    )
    # A page of one charset names goods of every tongue: what it cannot write becomes a character reference. So
    # does what Python's codec and the web's read differently, such as the pound sign in Shift_JIS.
    for codec in (WEB_CODECS.get(charset, charset), charset):
        text = text.encode(codec, "xmlcharrefreplace").decode(codec)
    content_type = "text/html" if declared == "meta" else f"text/html; charset={charset}"
    return Document(title, text, text.count("<a href="), charset, content_type, coding)


def _meta(charset: str) -> str:
    if charset in ("utf-8", "shift_jis"):
        return f'<meta charset="{charset}">\n'
    return f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">\n'


def _paragraphs(rng: random.Random, tongue: Tongue, amount: int) -> list[str]:
    sentences = rng.choices(tongue.sentences, k=amount * 6)
    return [f"<p>{escape(tongue.space.join(sentences[at : at + 6]))}</p>" for at in range(0, len(sentences), 6)]


def _shelf(products: list[_Product]) -> str:
    rows = (
        f'<li>{_link(product.path, product.name)} <span class="price">{product.price}</span></li>'
        for product in products
    )
    return f'<ul class="shelf" id="shelf">\n{"".join(rows)}\n</ul>'


def _link(href: str, words: str) -> str:
    return f'<a href="{href}">{escape(words)}</a>'
