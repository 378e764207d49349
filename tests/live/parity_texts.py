"""The texts of `make parity`: English, Chinese, mixed, emoji, white space, one character, digits, code, very long.

None holds a model's special tokens, and none is blank: those have tests of their own.
"""

from collections.abc import Callable

QUERIES = [
    "What is the capital of China?",
    "重力是什么?",
    "a",
    "How do I return a damaged parcel, and who pays for the postage?",
    "订单号 20240917-88 什么时候发货？",
    "best ramen near Shinjuku 🍜",
    "def quicksort(items): how does it choose the pivot",
    "中国的首都 capital city of 中国",
    "  leading blanks and\ta tab",
    "WHY IS THE SKY BLUE!?",
]

DOCUMENTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other.",
    "北京是中国的首都。\n它有两千多万人口。",
    "Emoji 🐼 and\ttabs, and a trailing blank ",
    "x",
    "中",
    "7",
    "Parcels that arrive damaged can be returned within 30 days. We pay for the postage.\n",
    "退货须在签收后七天内申请，运费由商家承担。",
    "订单 20240917-88 已于 2024-09-18 14:05 发货，预计 3 天内送达。",
    "def quicksort(items):\n    if len(items) < 2:\n        return items\n    pivot, *rest = items\n",
    '{"id": 17, "price": 1299.00, "tags": ["new", "sale"], "note": null}',
    "🍜🍣🍱",
    "Tonkotsu ramen 豚骨ラーメン is served until 23:00, closed on Mondays.",
    "\n\nTwo newlines before, two after\n\n",
    "Sunlight is scattered by the molecules of the air; blue light is scattered more than red.",
    "THE SKY IS BLUE BECAUSE OF RAYLEIGH SCATTERING",
    "3.14159 26535 89793 23846 26433 83279",
    "Query: what is this? Document: a document that talks of a Query: and of <Instruct> as if it were one.",
    "naïve café, Zürich, coöperate, Ελλάδα, Москва",
    "C:\\temp\\new_file.txt && rm -rf ./build; echo $HOME # 50% off {query}",
]

# Cut to the longest beginning that fits beside the prompt.
LONG = [
    "The quick brown fox jumps over the lazy dog while the parcel waits at the counter, "
    "and nobody asks for the number of the order. " * 20,
    "北京是中国的首都，位于华北平原的北部，有三千多年的建城史，是全国的政治、文化和国际交往中心。" * 20,
    "row 17: size=42 色=红 price=￥1,299.00 ok ✅\n\tnext() -> None; # 下一行\n" * 30,
]

_JOINTS = (" ", "\n", "\t", "。", " — ", ", ")


def near_limit(tokens: Callable[[str], int], limit: int) -> list[str]:
    """The beginnings of `LONG` that make at most so many tokens, nearly that many."""
    return [_longest(text, tokens, limit) for text in LONG]


def texts(tokens: Callable[[str], int], limit: int) -> list[str]:
    """What to embed: all of the above, every query joined to every document, and the near-limit ones."""
    joined = [
        f"{query}{_JOINTS[(row + column) % len(_JOINTS)]}{document}"
        for row, query in enumerate(QUERIES)
        for column, document in enumerate(DOCUMENTS)
    ]
    return [*QUERIES, *DOCUMENTS, *joined, *near_limit(tokens, limit)]


def _longest(text: str, tokens: Callable[[str], int], limit: int) -> str:
    fits, fails = 0, len(text) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if tokens(text[:middle]) <= limit:
            fits = middle
        else:
            fails = middle
    if fails > len(text):
        raise ValueError(f"{text[:20]!r}... is too short to come near {limit} tokens")
    return text[:fits]
