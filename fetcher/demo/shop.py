"""The pages of the built-in site: a coffee and book shop, drawn from a seed.

The same number of pages and the same seed make the same bytes in every process. A page's ``text`` is what a browser
decodes from those bytes: what a legacy charset lacks is already a character reference there.
"""

from __future__ import annotations

import functools
import json
import random
from html import escape
from types import MappingProxyType

import msgspec

from fetcher.demo.phrases import LANGUAGES, Language

__all__ = ["ShopPage", "notice_page", "shop_pages"]

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
"""Language, charset and where the charset is declared, for each product in turn."""

WEB_CODECS = {"shift_jis": "cp932"}
"""Where the WHATWG Encoding Standard means another codec than Python by the same name."""

CODINGS = (None, "gzip", None, "br", "gzip")
PRODUCTS_PER_CATEGORY = 12
PARAGRAPH_COUNTS = (4, 10, 24, 50, 110)
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


class ShopPage(msgspec.Struct, frozen=True):
    """A page: its text, and how it is sent.

    ``coding`` is the content coding it is sent with to clients that accept it; ``links`` counts ``a[href]``.
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
    language: Language
    charset: str
    declared: str
    coding: str | None


@functools.lru_cache(maxsize=8)
def shop_pages(count: int, seed: int) -> MappingProxyType[str, ShopPage]:
    """Draw the ``count`` pages of the shop by path: the home page first, then categories and products."""
    rng = random.Random(seed)  # noqa: S311 - a page must come out the same again, which no secret may
    categories = tuple(
        f"/categories/{name}" for name in CATEGORIES[: min(len(CATEGORIES), -(-(count - 1) // PRODUCTS_PER_CATEGORY))]
    )
    products = [_draw_product(rng, number) for number in range(1, count - len(categories))]
    pages = {"/": _home_page(rng, categories, products)}
    for place, path in enumerate(categories):
        pages[path] = _category_page(rng, categories, path, products[place :: len(categories)])
    for product in products:
        pages[product.path] = _product_page(rng, categories, product, products)
    return MappingProxyType(pages)


def notice_page(title: str, words: str) -> ShopPage:
    """Make a short page with one message."""
    main = f'<h1 class="name">{escape(title)}</h1>\n<p>{escape(words)}</p>'
    return _render(LANGUAGES["en"], title, main, ())


def _draw_product(rng: random.Random, number: int) -> _Product:
    code, charset, declared = VARIANTS[number % len(VARIANTS)]
    language = LANGUAGES[code]
    cents = rng.randrange(650, 9900, 5)
    slug = f"{rng.choice(ORIGINS)}-{number}"
    return _Product(
        path=f"/coffee/{slug}",
        name=f"{rng.choice(language.coffees)} {number}",
        price=language.price.format(*divmod(cents, 100)),
        image=f"/img/{slug}.png",
        language=language,
        charset=charset,
        declared=declared,
        coding=CODINGS[number % len(CODINGS)],
    )


def _home_page(rng: random.Random, categories: tuple[str, ...], products: list[_Product]) -> ShopPage:
    language = LANGUAGES["en"]
    featured = rng.sample(products, min(24, len(products)))
    main = [
        f'<h1 class="name">{escape(language.shop)}</h1>',
        '<img class="hero" src="/img/shop.png" alt="">',
        *_paragraphs(rng, language, 3),
        _shelf(featured),
    ]
    return _render(language, "Coffee and books by post", "\n".join(main), categories, coding="gzip")


def _category_page(rng: random.Random, categories: tuple[str, ...], path: str, products: list[_Product]) -> ShopPage:
    language = LANGUAGES["en"]
    name = path.rpartition("/")[2].replace("-", " ").capitalize()
    main = [
        f'<h1 class="name">{name}</h1>',
        f'<img class="hero" src="/img/{path.rpartition("/")[2]}.png" alt="">',
        *_paragraphs(rng, language, 2),
        f"<p>{_link(path + '?sort=price', 'By price')} {_link('#shelf', 'To the shelf')}</p>",
        _shelf(products[:60]),
    ]
    return _render(language, name, "\n".join(main), categories)


def _product_page(
    rng: random.Random, categories: tuple[str, ...], product: _Product, products: list[_Product]
) -> ShopPage:
    language = product.language
    basket, reviews, related, _ = language.labels
    tags = "".join(f'<li class="tag">{escape(tag)}</li>' for tag in rng.sample(language.tags, rng.randint(1, 3)))
    facts = {"@context": "https://schema.org", "@type": "Product", "name": product.name, "sku": product.path[-4:]}
    amount = rng.choices(PARAGRAPH_COUNTS, PARAGRAPH_WEIGHTS)[0]
    quotes = rng.choices(language.sentences, k=rng.randint(0, 12))
    main = [
        f'<script type="application/ld+json">{json.dumps(facts)}</script>',
        f'<h1 class="name">{escape(product.name)}</h1>',
        f'<img class="hero" src="{product.image}" alt="{escape(product.name)}">',
        f'<p><span class="price">{product.price}</span> <button>{escape(basket)}</button></p>',
        f'<ul class="tags">{tags}</ul>',
        '<div class="description">',
        *_paragraphs(rng, language, amount),
        "</div>",
        f"<h2>{escape(reviews)}</h2>",
        *(f"<blockquote>{escape(quote)}</blockquote>" for quote in quotes),
        f"<h2>{escape(related)}</h2>",
        _shelf(rng.sample(products, min(rng.randint(3, 8), len(products)))),
    ]
    return _render(
        language,
        product.name,
        "\n".join(main),
        categories,
        charset=product.charset,
        declared=product.declared,
        coding=product.coding,
    )


def _render(
    language: Language,
    title: str,
    main: str,
    categories: tuple[str, ...],
    *,
    charset: str = "utf-8",
    declared: str = "both",
    coding: str | None = None,
) -> ShopPage:
    title = f"{title} | {language.shop}"
    nav = [_link(path, path.rpartition("/")[2].replace("-", " ").capitalize()) for path in categories]
    text = _FRAME.format(
        lang=language.code,
        meta="" if declared == "header" else _meta(charset),
        title=escape(title),
        nav=" ".join([_link("/", language.labels[3]), *nav]),
        main=main,
        shop=escape(language.shop),
        foot=_link("mailto:post@shop.example", "post@shop.example"),
    )
    # A page in one charset names goods in every language: what it cannot encode becomes a character reference. So
    # does what Python's codec and the web's decode differently, such as the pound sign in Shift_JIS.
    for codec in (WEB_CODECS.get(charset, charset), charset):
        text = text.encode(codec, "xmlcharrefreplace").decode(codec)
    content_type = "text/html" if declared == "meta" else f"text/html; charset={charset}"
    return ShopPage(title, text, text.count("<a href="), charset, content_type, coding)


def _meta(charset: str) -> str:
    if charset in ("utf-8", "shift_jis"):
        return f'<meta charset="{charset}">\n'
    return f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">\n'


def _paragraphs(rng: random.Random, language: Language, amount: int) -> list[str]:
    sentences = rng.choices(language.sentences, k=amount * 6)
    return [f"<p>{escape(language.space.join(sentences[at : at + 6]))}</p>" for at in range(0, len(sentences), 6)]


def _shelf(products: list[_Product]) -> str:
    rows = (
        f'<li>{_link(product.path, product.name)} <span class="price">{product.price}</span></li>'
        for product in products
    )
    return f'<ul class="shelf" id="shelf">\n{"".join(rows)}\n</ul>'


def _link(href: str, words: str) -> str:
    return f'<a href="{href}">{escape(words)}</a>'
