"""Chorus Electronics: 2,517 real products and 135 queries of an electronics shop, with 3,668 grades by people.

The set is not checked in. `load` takes it from the folder RAGPAIR_DATA/chorus-electronics, or else downloads the pinned
revision of github.com/querqy/chorus once, keeps the products that were graded, and caches them. What comes, from
either place, must have the SHA-256 of the set that the notebooks' numbers were made with.

Licences. The grades (katas/Broad_Query_Set_rated.csv, three raters a pair, by Supahands) are part of Chorus:
Apache-2.0. The product texts are (c) Icecat and the brand owners, under Icecat's Open Content License (OPL): copies and
changed copies are allowed, also in trade, but nothing may be charged for the content itself; the notice and the
disclaimer of warranty stay with it ("AS IS"), changes are marked, and changed copies are shared alike. Prices came into
Chorus from upcitemdb.com. `convert` changes: it keeps graded products only and six of their fields, removes HTML and
images, and cuts descriptions at 400 characters.

The grades are of pools: what a query's pool (the keys of qrels[query]) lacks was never judged, and much of what a model
finds in the whole catalogue is outside. Rank inside the pool. In the pools of 19 queries all grades are 0.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from .download import VARIABLE, DataError, cache, fetch, provided
from .shop import Product, Shop, read_lines, read_qrels

NAME = "chorus-electronics"
REVISION = "96edf8b536e521be06cab910e0f6a9b25e3016fc"
SOURCE = f"https://raw.githubusercontent.com/querqy/chorus/{REVISION}"
RATINGS = "katas/Broad_Query_Set_rated.csv"
CATALOGUE = [f"data-encoder/ecommerce/vectors/data/{number}.json.zip" for number in (1, 2, 3, 4)]
FILES = ("products.jsonl", "queries.jsonl", "qrels.tsv")
DESCRIPTION_LIMIT = 400
NOTICE = f"""Product texts (c) Icecat and brand owners, sourced from Icecat and licensed under the Open Content License
(OPL), https://iceclog.com/open-content-license-opl/, AS IS, without warranty. Grades: Apache-2.0, by Supahands.
Taken from github.com/querqy/chorus, revision {REVISION}. Changed: only graded products, six fields, HTML and
images removed, descriptions cut at {DESCRIPTION_LIMIT} characters.
"""

# How many there are and the SHA-256 of the canonical content; `digests` says what that is.
EXPECTED = {
    "queries": (135, "4311ae840ad958d913c059c1d4466804efdb798523f4f5917fb8f1eb6e91c646"),
    "grades": (3668, "4d7e9059c7cc2b30518066ba1af92854e8b64579f0baadfc4e45845be1e28844"),
    "products": (2517, "04c0b3edd556238f4a2ec7d951869dfb3af1907c1fcca9439b8e83bba77acf44"),
}


def load() -> Shop:
    """The set; sales and rating are None, since Chorus does not have them. Prices are in dollars."""
    folder = provided(NAME)
    if folder is not None:
        otherwise = "or remove that folder: then the set is downloaded."
        if missing := [file for file in FILES if not (folder / file).is_file()]:
            raise DataError(
                f"There is no {' and no '.join(missing)} in {folder}. Put what is missing there, {otherwise}"
            )
        return _checked(folder, f"Mend the files in {folder}, {otherwise}")

    folder = cache(f"chorus-{REVISION[:7]}")
    if not all((folder / file).is_file() for file in FILES):
        convert(folder)
    again = f"Delete the folder {folder} and load again. If it stays so, what is downloaded has changed."
    shop = _checked(folder, again)
    shutil.rmtree(folder / "source", ignore_errors=True)
    return shop


def read(folder: Path) -> Shop:
    """The set as it lies in a folder."""
    products = [
        Product(
            id=row["id"],
            title=row["title"],
            description=row["description"],
            brand=row["brand"],
            category=row.get("type", ""),
            price=row["price_cents"] / 100,
            sales=None,
            rating=None,
            in_stock=True,
        )
        for row in read_lines(folder / "products.jsonl")
    ]
    queries = {row["id"]: row["text"] for row in read_lines(folder / "queries.jsonl")}
    return Shop(products, queries, read_qrels(folder / "qrels.tsv"))


def digests(shop: Shop) -> dict[str, tuple[int, str]]:
    """How many queries, grades and products there are, and the SHA-256 of each: tab-separated fields, sorted lines."""
    grades = [(query, product, grade) for query, pool in shop.qrels.items() for product, grade in pool.items()]
    return {
        "queries": _digest(shop.queries.items()),
        "grades": _digest(grades),
        "products": _digest((product.id, product.title, f"{product.price:.2f}") for product in shop.products),
    }


def verify(shop: Shop, mend: str) -> None:
    """Raises an error if the set is another one than that of the notebooks."""
    wrong = []
    for part, found in digests(shop).items():
        expected = EXPECTED[part]
        if found[0] != expected[0]:
            wrong.append(f"{found[0]} {part} instead of {expected[0]}")
        elif found != expected:
            wrong.append(f"{part} whose SHA-256 is {found[1][:12]}... instead of {expected[1][:12]}...")
    if wrong:
        raise DataError(f"This is not the {NAME} set of the notebooks: {'; '.join(wrong)}. {mend}")


def convert(folder: Path) -> None:
    """Downloads the repository's files and writes the set's three files, from them, into the folder."""
    pools = _ratings(_fetch(RATINGS, folder))
    graded = {product for pool in pools.values() for product in pool}
    found: dict[str, dict[str, Any]] = {}
    for name in CATALOGUE:
        for row in _catalogue(_fetch(name, folder)):
            if str(row.get("id")) in graded:
                found.setdefault(str(row["id"]), row)
    products = [_product(found[product]) for product in sorted(found)]
    ids = {text: f"q{number:03d}" for number, text in enumerate(pools)}
    qrels = [(ids[text], product, grade) for text, pool in pools.items() for product, grade in pool.items()]

    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
    _write(folder / "queries.jsonl", (_line({"id": id, "text": text}) for text, id in ids.items()))
    _write(folder / "qrels.tsv", ("\t".join(map(str, row)) for row in [("query_id", "doc_id", "rating"), *qrels]))
    _write(folder / "products.jsonl", map(_line, products))


def plain(text: str) -> str:
    """A text without HTML: tags dropped, entities resolved, white space run together."""
    parser = _Text()
    parser.feed(text)
    parser.close()
    return " ".join("".join(parser.parts).split())


class _Text(HTMLParser):
    """Collects what a reader sees."""

    BREAKS = frozenset({"br", "dd", "div", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "p", "td", "th", "tr"})
    HIDDEN = frozenset({"script", "style"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = tag in self.HIDDEN
        if tag in self.BREAKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False
        if tag in self.BREAKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def _checked(folder: Path, mend: str) -> Shop:
    try:
        shop = read(folder)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"The files in {folder} cannot be read as {NAME}: {error!r}. {mend}") from error
    verify(shop, mend)
    return shop


def _fetch(name: str, folder: Path) -> Path:
    otherwise = (
        f"Load the set where there is a network, copy the folder {folder.name} from that machine's cache to "
        f"SOME_FOLDER/{NAME} here, and set {VARIABLE} to SOME_FOLDER."
    )
    return fetch(f"{SOURCE}/{name}", folder / "source" / Path(name).name, otherwise)


def _ratings(path: Path) -> dict[str, dict[str, int]]:
    """Grades by the query's text and the product's id, in the order of the file."""
    pools: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if missing := {"query", "docid", "rating"} - set(rows.fieldnames or ()):
            raise DataError(f"{SOURCE}/{RATINGS} has no column {', '.join(sorted(missing))}: {rows.fieldnames}.")
        for row in rows:
            pools.setdefault(row["query"], {})[row["docid"]] = int(row["rating"])
    return pools


def _catalogue(path: Path) -> list[dict[str, Any]]:
    """The products in one archive: N.json.zip holds N.json, a list of objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            rows: list[dict[str, Any]] = json.loads(archive.read(path.stem))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        path.unlink()
        raise DataError(
            f"What was downloaded as {path.name} is no archive of products ({error}). Try again."
        ) from error
    return rows


def _product(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a product of Icecat's. Its price is in cents; few have a type."""
    try:
        kept = {
            "id": str(row["id"]),
            "title": plain(row["title"]),
            "brand": row["supplier"],
            "price_cents": int(row["price"]),
            "description": plain(row.get("short_description") or "")[:DESCRIPTION_LIMIT],
        }
    except KeyError as error:
        raise DataError(f"Product {row.get('id')} of Chorus has no field {error}; it has {sorted(row)}.") from error
    return kept | ({"type": row["attr_t_product_type"]} if row.get("attr_t_product_type") else {})


def _digest(rows: Iterable[Iterable[object]]) -> tuple[int, str]:
    lines = sorted("\t".join(map(str, row)) for row in rows)
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write(path: Path, lines: Iterable[str]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    part.replace(path)
