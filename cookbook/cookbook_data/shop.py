"""A shop written for this cookbook: 255 products and 60 graded queries, in English and in Chinese.

data/shop/README.md says how it was written, by what rule the grades were given, and what one query weighs.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).resolve().parent.parent / "data" / "shop"


@dataclass(frozen=True)
class Product:
    """One product. `price` is in dollars, in the Chinese shop in yuan; None where the shop does not know."""

    id: str
    title: str
    description: str
    brand: str
    category: str
    price: float
    sales: int | None  # units in the last 30 days
    rating: float | None  # 1 to 5
    in_stock: bool


@dataclass(frozen=True)
class Shop:
    """Products, what customers typed, and how well products answer it: grades 0 to 3, by query and product."""

    products: list[Product]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def load(language: Literal["en", "zh"] = "en") -> Shop:
    """The shop in one language. Ids and grades are the same in both; a product without a grade is judged irrelevant."""
    if language not in ("en", "zh"):
        raise ValueError(f"the shop speaks 'en' and 'zh', not {language!r}")
    suffix = "_zh" if language == "zh" else ""
    products = [
        Product(
            id=row["id"],
            title=row[f"title{suffix}"],
            description=row[f"description{suffix}"],
            brand=row[f"brand{suffix}"],
            category=row[f"category{suffix}"],
            price=row["price_cny" if language == "zh" else "price"],
            sales=row["sales"],
            rating=row["rating"],
            in_stock=row["in_stock"],
        )
        for row in read_lines(FOLDER / "products.jsonl")
    ]
    queries = {row["id"]: row[f"text{suffix}"] for row in read_lines(FOLDER / "queries.jsonl")}
    return Shop(products, queries, read_qrels(FOLDER / "qrels.tsv"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file."""
    # Not splitlines(), which also splits at characters that JSON leaves as they are inside strings.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """The grades of a table with a header line and the columns query, product, grade."""
    qrels: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t")
        next(rows)
        for query, product, grade in rows:
            qrels.setdefault(query, {})[product] = int(grade)
    return qrels
