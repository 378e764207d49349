"""The cookbook's shops: that the one written here is whole, and that the downloaded is the right one, or refused."""

import importlib
import importlib.util
import io
import json
import re
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COOKBOOK = Path(__file__).resolve().parents[1] / "cookbook"
NAME = "cookbook_data"

if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        NAME, COOKBOOK / NAME / "__init__.py", submodule_search_locations=[str(COOKBOOK / NAME)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
chorus = importlib.import_module(f"{NAME}.chorus")
download = importlib.import_module(f"{NAME}.download")
shop = importlib.import_module(f"{NAME}.shop")

HAN = re.compile(r"[\u4e00-\u9fff]")
REAL_BRANDS = re.compile(
    r"\b(sony|apple|iphone|ipad|airpods|bosch|samsung|philips|xiaomi|huawei|anker|jbl|bose|logitech|ikea|lego|nike|adidas|"
    r"thermos|tupperware|stanley|kindle|dyson|braun|gardena|duplo|barbie|tritan|teflon|gore-tex|velcro)\b"
    r"|索尼|苹果|博世|三星|飞利浦|小米|华为|罗技|宜家|乐高|耐克|阿迪达斯|膳魔师|戴森|格力|苏泊尔|安克|漫步者",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def en() -> Any:
    return shop.load("en")


@pytest.fixture(scope="module")
def zh() -> Any:
    return shop.load("zh")


# The shop written here


def test_the_shop_has_the_size_that_its_readme_states(en: Any) -> None:
    readme = (COOKBOOK / "data" / "shop" / "README.md").read_text(encoding="utf-8")
    grades = sum(map(len, en.qrels.values()))
    assert 220 <= len(en.products) <= 260
    assert len(en.queries) == 60
    assert f"{len(en.products)} products" in readme
    assert f"{grades} grades" in readme


def test_both_languages_have_the_same_ids_stock_and_grades(en: Any, zh: Any) -> None:
    assert [(p.id, p.sales, p.rating, p.in_stock) for p in en.products] == [
        (p.id, p.sales, p.rating, p.in_stock) for p in zh.products
    ]
    assert list(en.queries) == list(zh.queries)
    assert en.qrels == zh.qrels


def test_another_language_is_refused() -> None:
    with pytest.raises(ValueError, match="'fr'"):
        shop.load("fr")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_are_unique_full_and_clean(language: str) -> None:
    loaded = shop.load(language)
    texts = [text for p in loaded.products for text in (p.title, p.description, p.brand, p.category)]
    texts += loaded.queries.values()
    assert all(text and text == " ".join(text.split()) for text in texts)
    for values in (
        [p.id for p in loaded.products],
        [p.title for p in loaded.products],
        [p.description for p in loaded.products],
        list(loaded.queries.values()),
    ):
        assert len(values) == len(set(values))
    assert len({p.category for p in loaded.products}) >= 10
    assert all(p.title.startswith(p.brand) for p in loaded.products)


def test_the_languages_are_what_they_say(en: Any, zh: Any) -> None:
    for p in en.products:
        assert (p.title + p.description + p.brand + p.category).isascii()
    for p in zh.products:
        assert len(HAN.findall(p.title)) >= 6
        assert len(HAN.findall(p.description)) >= 6
        assert HAN.search(p.brand)
        assert HAN.search(p.category)
    assert all(text.isascii() for text in en.queries.values())
    assert all(HAN.search(text) for text in zh.queries.values())


def test_no_real_brand_is_named(en: Any, zh: Any) -> None:
    for loaded in (en, zh):
        for text in [f"{p.title} {p.description}" for p in loaded.products] + list(loaded.queries.values()):
            assert not REAL_BRANDS.search(text), text


def test_prices_are_positive_and_not_the_same_number_twice(en: Any, zh: Any) -> None:
    rates = [theirs.price / ours.price for ours, theirs in zip(en.products, zh.products, strict=True)]
    assert all(p.price > 0 for p in [*en.products, *zh.products])
    assert all(1.5 < rate < 9 for rate in rates)  # a forgotten or swapped price shows here
    assert len(set(rates)) > 100  # not converted


def test_sales_have_a_heavy_tail(en: Any) -> None:
    sales = sorted((p.sales for p in en.products), reverse=True)
    assert sales[-1] == 0
    assert 15_000 < sales[0] <= 20_000
    assert sum(sales[:25]) > 0.25 * sum(sales)
    assert sum(sales) / len(sales) > 1.25 * sales[len(sales) // 2]


def test_ratings_and_stock(en: Any) -> None:
    rated = [p.rating for p in en.products if p.rating is not None]
    assert all(1 <= rating <= 5 and round(rating, 1) == rating for rating in rated)
    assert 5 <= len(en.products) - len(rated) <= 25
    assert 0.06 <= sum(not p.in_stock for p in en.products) / len(en.products) <= 0.10


def test_every_query_is_graded_on_products_that_exist(en: Any) -> None:
    ids = {p.id for p in en.products}
    assert set(en.qrels) == set(en.queries)
    for pool in en.qrels.values():
        assert set(pool) <= ids
        assert set(pool.values()) <= {1, 2, 3}


def test_every_query_has_an_answer_and_most_have_several(en: Any) -> None:
    rows = shop.read_lines(shop.FOLDER / "queries.jsonl")
    kinds = {row["id"]: row["kind"] for row in rows}
    assert Counter(kinds.values()) == {
        "head": 14,
        "attribute": 16,
        "problem": 14,
        "long tail": 6,
        "brand": 5,
        "gift": 5,
    }
    for query, pool in en.qrels.items():
        assert 3 in pool.values(), query
        assert kinds[query] in ("long tail", "brand") or len(pool) >= 3, query


def test_no_grade_is_given_twice() -> None:
    lines = (shop.FOLDER / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split("\t")[:2]) for line in lines]
    assert len(pairs) == len(set(pairs))


def test_the_bargains_that_blending_must_keep_down_are_there(en: Any) -> None:
    """Accessories that share the words of "wireless earbuds for running", cheaper and sold more."""
    products = {p.id: p for p in en.products}
    query = next(id for id, text in en.queries.items() if text == "wireless earbuds for running")
    wanted = [products[id] for id, grade in en.qrels[query].items() if grade >= 2]
    accessories = [products[id] for id, grade in en.qrels[query].items() if grade == 1]
    assert 5 <= len(wanted) <= 10
    assert max(p.price for p in wanted) > 5 * min(p.price for p in wanted)
    bargains = [p for p in accessories if p.price < min(w.price for w in wanted) and p.sales > 5000]
    assert len(bargains) >= 2
    assert max(p.sales for p in bargains) > max(p.sales for p in wanted)


# Chorus

RATINGS = "query,docid,rating\nspeaker,10,3\nspeaker,9,0\nradio,9,2\nradio,10,1\nspeaker,11,1\n"
ICECAT: list[dict[str, Any]] = [
    {
        "id": "10",
        "name": "Boom",
        "title": "Acme Boom  speaker &amp; stand",
        "supplier": "Acme",
        "price": 1999,
        "short_description": "<p>Loud.</p><p>Black<br/>and <b>blue</b></p>",
        "attr_t_product_type": "Stereo portable speaker",
        "img_high": "http://images.example/10.jpg",
    },
    {"id": "8", "title": "Never graded", "supplier": "Acme", "price": 5, "short_description": "Skipped"},
    {"id": "9", "title": "Acme Radio -> FM", "supplier": "Acme", "price": 95, "short_description": "x" * 500},
    {"id": "11", "title": "Acme Clock", "supplier": "Acme", "price": 700},
]


def zipped(number: int, rows: Any) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{number}.json", json.dumps(rows))
    return content.getvalue()


class Host:
    """Serves the files of a made-up revision of the repository, and counts what is asked for."""

    def __init__(self) -> None:
        self.files = {f"/{chorus.RATINGS}": RATINGS.encode()}
        for number, name in enumerate(chorus.CATALOGUE, 1):
            self.files[f"/{name}"] = zipped(number, ICECAT[number - 1 : number])
        self.asked: list[str] = []
        self.claimed = 0  # bytes more than are sent

    def handler(self) -> type[BaseHTTPRequestHandler]:
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                body = host.files.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"") + host.claimed))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: Any) -> None: ...

        return Handler


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Host]:
    host = Host()
    server = ThreadingHTTPServer(("127.0.0.1", 0), host.handler())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(chorus, "SOURCE", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAGPAIR_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    yield host
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small set, as RAGPAIR_DATA holds it; nothing may be downloaded."""
    folder = tmp_path / "data" / "chorus-electronics"
    folder.mkdir(parents=True)
    products = [
        {"id": "10", "title": "Boom", "brand": "Acme", "price_cents": 1999, "description": "Loud", "type": "Speaker"},
        {"id": "9", "title": "Radio\u2028FM", "brand": "Acme", "price_cents": 95, "description": ""},
    ]
    (folder / "products.jsonl").write_text(
        "".join(json.dumps(p, ensure_ascii=False) + "\n" for p in products), encoding="utf-8"
    )
    (folder / "queries.jsonl").write_text('{"id": "q000", "text": "speaker"}\n', encoding="utf-8")
    (folder / "qrels.tsv").write_text("query_id\tdoc_id\trating\nq000\t10\t3\nq000\t9\t0\n", encoding="utf-8")
    monkeypatch.setenv("RAGPAIR_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(chorus, "SOURCE", "http://127.0.0.1:9")
    return folder


def expect(monkeypatch: pytest.MonkeyPatch, loaded: Any) -> None:
    """Makes a small set the right one."""
    monkeypatch.setattr(chorus, "EXPECTED", chorus.digests(loaded))


def test_chorus_is_read_from_the_given_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, chorus.read(folder))
    loaded = chorus.load()
    assert loaded.products[0] == shop.Product(
        id="10",
        title="Boom",
        description="Loud",
        brand="Acme",
        category="Speaker",
        price=19.99,
        sales=None,
        rating=None,
        in_stock=True,
    )
    assert loaded.products[1].category == ""
    assert loaded.queries == {"q000": "speaker"}
    assert loaded.qrels == {"q000": {"10": 3, "9": 0}}


def test_a_folder_that_holds_other_sets_only_is_no_obstacle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))
    folder.rename(folder.parent / "banking77")
    with pytest.raises(download.DataError, match="could not be downloaded"):
        chorus.load()


def test_a_variable_that_names_no_folder_is_refused_before_anything_is_downloaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGPAIR_DATA", f"{folder.parent}s")
    with pytest.raises(download.DataError, match=r"RAGPAIR_DATA is '\S*datas', and \S*datas is no folder\. Correct"):
        chorus.load()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAGPAIR_DATA", "data")
    with pytest.raises(
        download.DataError, match=r"RAGPAIR_DATA is 'data', and \S*chorus-electronics/data is no folder"
    ):
        chorus.load()


def test_an_incomplete_folder_is_refused_with_what_it_lacks(folder: Path) -> None:
    (folder / "qrels.tsv").unlink()
    with pytest.raises(
        download.DataError, match=r"no qrels\.tsv in \S*chorus-electronics\. Put .* or remove that folder"
    ):
        chorus.load()
    (folder / "queries.jsonl").unlink()
    with pytest.raises(download.DataError, match=r"^There is no queries\.jsonl and no qrels\.tsv in \S*\. Put what is"):
        chorus.load()


def test_a_damaged_file_is_refused_with_its_folder(folder: Path) -> None:
    (folder / "queries.jsonl").write_text('{"id": "q000"}\n', encoding="utf-8")
    with pytest.raises(
        download.DataError, match=r"files in .*chorus-electronics cannot be read .*'text'.* or remove that folder"
    ):
        chorus.load()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("products.jsonl", "1999", "1998", r"products whose SHA-256 is \w{12}\.\.\. instead of \w{12}"),
        ("products.jsonl", "Boom", "Doom", "products whose SHA-256"),
        ("queries.jsonl", "speaker", "speakers", "queries whose SHA-256"),
        ("qrels.tsv", "9\t0", "9\t1", "grades whose SHA-256"),
        ("qrels.tsv", "q000\t9\t0\n", "", "1 grades instead of 2"),
    ],
)
def test_another_set_is_refused_with_what_differs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, complaint: str
) -> None:
    expect(monkeypatch, chorus.read(folder))
    edit(folder / file, old, new)
    with pytest.raises(
        download.DataError, match=rf"not the chorus-electronics set[^;]*: {complaint}[^;]* Mend the files"
    ):
        chorus.load()


def test_order_of_lines_and_descriptions_do_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, chorus.read(folder))
    lines = (folder / "products.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    (folder / "products.jsonl").write_text("\n".join(reversed(lines)), encoding="utf-8")
    edit(folder / "products.jsonl", "Loud", "Quiet")
    assert [p.id for p in chorus.load().products] == ["9", "10"]


def test_what_is_pinned_is_the_size_that_the_module_tells() -> None:
    assert {part: count for part, (count, _) in chorus.EXPECTED.items()} == {
        "queries": 135,
        "grades": 3668,
        "products": 2517,
    }
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for _, digest in chorus.EXPECTED.values())
    assert chorus.REVISION in chorus.SOURCE
    assert chorus.REVISION in chorus.NOTICE


def test_chorus_is_downloaded_converted_and_kept(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "ragpair" / "chorus-96edf8b"
    chorus.convert(kept)
    expect(monkeypatch, chorus.read(kept))
    asked = len(host.asked)
    assert asked == 5
    loaded = chorus.load()

    assert loaded.queries == {"q000": "speaker", "q001": "radio"}
    assert loaded.qrels == {"q000": {"10": 3, "9": 0, "11": 1}, "q001": {"9": 2, "10": 1}}
    speaker, clock, radio = loaded.products
    assert (speaker.id, clock.id, radio.id) == ("10", "11", "9")
    assert speaker.title == "Acme Boom speaker & stand"
    assert speaker.description == "Loud. Black and blue"
    assert (speaker.brand, speaker.category, speaker.price) == ("Acme", "Stereo portable speaker", 19.99)
    assert (clock.description, clock.category) == ("", "")
    assert (radio.title, len(radio.description)) == ("Acme Radio -> FM", 400)
    assert {(p.sales, p.rating, p.in_stock) for p in loaded.products} == {(None, None, True)}

    assert sorted(path.name for path in kept.iterdir()) == ["NOTICE", "products.jsonl", "qrels.tsv", "queries.jsonl"]
    assert "Open Content License" in (kept / "NOTICE").read_text(encoding="utf-8")
    assert chorus.load() == loaded
    assert len(host.asked) == asked  # the second load asks for nothing


def test_the_wrong_download_is_refused_and_says_what_to_delete(host: Host, tmp_path: Path) -> None:
    with pytest.raises(
        download.DataError, match=r"2 queries instead of 135; 5 grades .*Delete the folder .*chorus-96edf8b"
    ):
        chorus.load()


def test_without_the_file_or_the_host_the_error_says_what_to_do(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    del host.files[f"/{chorus.CATALOGUE[2]}"]
    with pytest.raises(
        download.DataError, match=r"3\.json\.zip could not be downloaded: HTTP 404 .*set RAGPAIR_DATA to"
    ):
        chorus.load()
    monkeypatch.setattr(chorus, "SOURCE", "http://127.0.0.1:9")
    with pytest.raises(download.DataError, match=r"could not be downloaded: .*refused.*chorus-electronics here"):
        chorus.load()


def test_a_broken_download_leaves_nothing_and_goes_on_with_what_is_missing(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.claimed = 7
    with pytest.raises(download.DataError, match="could not be downloaded"):
        chorus.load()
    source = tmp_path / "cache" / "ragpair" / "chorus-96edf8b" / "source"
    assert list(source.iterdir()) == []
    host.claimed = 0
    host.files[f"/{chorus.CATALOGUE[1]}"] = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(download.DataError, match=r"2\.json\.zip is no archive of products"):
        chorus.load()
    assert sorted(path.name for path in source.iterdir()) == ["1.json.zip", "Broad_Query_Set_rated.csv"]
    host.files[f"/{chorus.CATALOGUE[1]}"] = zipped(2, [])
    host.asked.clear()
    chorus.convert(source.parent)
    assert host.asked == [f"/{name}" for name in chorus.CATALOGUE[1:]]


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda host: host.files.update({f"/{chorus.RATINGS}": b"query,doc,rating\n"}), "has no column docid"),
        (
            lambda host: host.files.update({f"/{chorus.CATALOGUE[0]}": zipped(1, [{"id": "10", "title": "Boom"}])}),
            "Product 10 of Chorus has no field 'supplier'",
        ),
    ],
)
def test_another_format_is_named(host: Host, break_it: Callable[[Host], None], complaint: str) -> None:
    break_it(host)
    with pytest.raises(download.DataError, match=complaint):
        chorus.load()


def test_the_cache_is_where_the_desktop_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache("x") == tmp_path / ".cache" / "ragpair" / "x"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain &lt;3 &amp; more", "plain <3 & more"),
        ("a<br>b<li>c</li>d", "a b c d"),
        ("in<b>side</b>", "inside"),
        ("x<style>p {}</style>y<script>z</script>", "xy"),
        ("IEC320C13 -> IEC320C14, VGA>USB, 3 < 4", "IEC320C13 -> IEC320C14, VGA>USB, 3 < 4"),
        (" two\u00a0 words\n", "two words"),
        ("tail &amp", "tail &"),
    ],
)
def test_html_is_removed(html: str, text: str) -> None:
    assert chorus.plain(html) == text
