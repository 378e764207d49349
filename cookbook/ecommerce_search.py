# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Product search: rank by relevance, but prefer cheap best-sellers
#
# A shop wants two things of its search. What was asked for must come first. And among what was asked for, what is
# cheap and sells well should come before what is expensive and hardly sells. Sort the results by price, and a search
# for earbuds starts with straps and ear tips. This notebook does it with LangChain and Qdrant:
#
# **recall** (meaning, or meaning and words) → **filters** → **rerank** by relevance → **blend** with price and sales
#
# It measures each step on 60 graded queries: what it finds, what the blend costs, and how far its weights can be
# turned. [The same in Chinese](ecommerce_search_zh.ipynb) · [with LlamaIndex](ecommerce_search_llamaindex.ipynb) ·
# [on a real catalogue](ecommerce_search_chorus.ipynb)
#
# The answer, for a reranker that gives probabilities, such as Qwen3-Reranker. The rest of the page is how well it
# works, and when it does not:
#
# ```python
# recall = store.as_retriever(search_kwargs={"k": 50})  # any LangChain retriever; price and sales are metadata
# rerank = RagpairRerank(base_url="http://localhost:8001", top_n=None)
# blend = RagpairSignalBlend(weights={"price": -0.1, "sales": 0.1}, top_n=10)
# pipeline = DocumentCompressorPipeline(transformers=[rerank, blend])
# search = ContextualCompressionRetriever(base_compressor=pipeline, base_retriever=recall)
# search.invoke("wireless earbuds for running")
# ```
#
# What came out:
#
# - With the small reranker that is embedded here, the blend gains nothing worth having. The weight that the labelled
#   queries allow changes the first product of 4 queries among 60, and 3 of the 4 get a worse one.
# - With the judges' grades in the reranker's place, the first product gets 23 % cheaper and sells almost twice as
#   much, at no cost. The relevance is what limits the blend.
# - Whatever the weights, up to 64, the list loses 7.5 % of its NDCG at most. A weighted sum loses a quarter.

# %%
# pip install "ragpair[cookbook]", and run it in the folder cookbook/ of a clone: the data lie there

# %% [markdown]
# These lines say which models and which Qdrant. The embedded models need no server, and are small. Everything below
# runs as it is on vLLM, SGLang or Ollama, and on a Qdrant server.

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local"}, {"base_url": "local", "scores": "raw"}
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}

# %% [markdown]
# ## The shop
#
# 255 invented products with prices, units sold in the last 30 days and stock, and 60 queries, each judged against all
# products: 3 is what was asked for, 2 a good alternative, 1 related (an accessory, say), 0 the rest. Price and sales
# had no part in the grades. As in real shops, accessories are cheap and sell well. [How it was
# written](data/shop/README.md).

# %%
import pandas as pd
from cookbook_data import shop

catalogue = shop.load("en")
products = pd.DataFrame(catalogue.products)
products[["title", "brand", "price", "sales", "in_stock"]].head(4)

# %% [markdown]
# ## Index
#
# The text that is embedded is title and description. Everything else is metadata, which LangChain stores beside the
# text and does not embed. One collection holds a dense vector and a BM25 vector of each product, and can be searched
# by either or by both. BM25 needs the IDF modifier, which makes rare words count more. Fields that
# are filtered or computed with get an index, before the data.

# %%
import warnings
from uuid import NAMESPACE_URL, uuid5

from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import models

from langchain_ragpair import RagpairEmbeddings, RagpairSparseEmbeddings


def point_id(product: str) -> str:
    """Qdrant's ids are UUIDs or whole numbers, so "p001" gets a UUID, the same one each time."""
    return str(uuid5(NAMESPACE_URL, f"shop/{product}"))


embeddings = RagpairEmbeddings(**EMBED)
bm25 = RagpairSparseEmbeddings(language="english")
documents = [
    Document(
        f"{product.title}\n{product.description}",
        metadata={
            "id": product.id,
            "title": product.title,
            "brand": product.brand,
            "price": product.price,
            "sales": product.sales,
            "in_stock": product.in_stock,
        },
    )
    for product in catalogue.products
]
hybrid = QdrantVectorStore.construct_instance(  # from_documents without documents: indexes first
    embeddings,
    RetrievalMode.HYBRID,
    bm25,
    client_options=QDRANT,
    collection_name="shop-en",
    force_recreate=True,
    sparse_vector_params={"modifier": models.Modifier.IDF},
)
client = hybrid.client
with warnings.catch_warnings():  # in memory there are no indexes, and Qdrant says so; a server filters faster with them
    warnings.filterwarnings("ignore", "Payload indexes have no effect")
    for field, kind in {"in_stock": "bool", "price": "float", "sales": "integer", "brand": "keyword"}.items():
        client.create_payload_index("shop-en", f"metadata.{field}", models.PayloadSchemaType(kind))

hybrid.add_documents(documents, ids=[point_id(product.id) for product in catalogue.products])
dense = QdrantVectorStore(client, "shop-en", embeddings)
words = QdrantVectorStore(client, "shop-en", retrieval_mode=RetrievalMode.SPARSE, sparse_embedding=bm25)

# %% [markdown]
# ## Filters
#
# What must hold is a filter and no score: in stock, within the price range, of one of these brands. Qdrant filters
# while it searches, so 50 candidates are 50 products that may be shown.


# %%
def buyable(low: float = 0, high: float | None = None, brands: list[str] | None = None) -> models.Filter:
    """In stock, within a price range, of certain brands."""
    must = [
        models.FieldCondition(key="metadata.in_stock", match=models.MatchValue(value=True)),
        models.FieldCondition(key="metadata.price", range=models.Range(gte=low, lte=high)),
    ]
    if brands:
        must.append(models.FieldCondition(key="metadata.brand", match=models.MatchAny(any=brands)))
    return models.Filter(must=must)


def table(results: list[Document], *more: str) -> pd.DataFrame:
    """Results as a shop shows them."""
    rows = pd.DataFrame([document.metadata for document in results], index=range(1, len(results) + 1))
    return rows[["title", "price", "sales", *more]]


table(dense.similarity_search("headphones", k=3, filter=buyable(20, 100, ["Zivoka", "Nembora"])), "brand")

# %% [markdown]
# ## Meaning and words
#
# `RetrievalMode.HYBRID` is one call of Qdrant's Query API: two searches, whose ranks the server fuses (RRF with k =
# 2; papers use 60). Spelled out, for the day when you want another `limit` for each side, another k, or weights:

# %%
query = "wireless earbuds for running"
in_words = bm25.embed_query(query)
found = client.query_points(
    "shop-en",
    prefetch=[
        models.Prefetch(query=embeddings.embed_query(query), filter=buyable(), limit=10),
        models.Prefetch(
            query=models.SparseVector(indices=in_words.indices, values=in_words.values),
            using=hybrid.sparse_vector_name,
            filter=buyable(),
            limit=10,
        ),
    ],
    query=models.FusionQuery(fusion=models.Fusion.RRF),  # or models.RrfQuery(rrf=models.Rrf(k=60, weights=[3, 1]))
    limit=10,
).points
same = hybrid.similarity_search(query, k=10, filter=buyable())
overlap = {point.payload["metadata"]["id"] for point in found} & {document.metadata["id"] for document in same}
print(f"{len(overlap)} of 10 products are the same")  # fewer only where ranks tie

# %% [markdown]
# ## Rerank
#
# A reranker reads query and product together. In LangChain it is the compressor of a
# `ContextualCompressionRetriever`. `top_n=None` keeps all 50 candidates, with their relevance in
# `metadata["relevance_score"]`: the blend needs them.

# %%
from langchain_classic.retrievers import ContextualCompressionRetriever

from langchain_ragpair import RagpairRerank

reranker = RagpairRerank(**RERANK, top_n=None)
recall = dense.as_retriever(search_kwargs={"k": 50})
reranking = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=recall)

# %% [markdown]
# ## How good is each step?
#
# NDCG@10 is 1 when the best products come first, in the order of their grades. pytrec_eval computes it.

# %%
import numpy as np
import pytrec_eval
from tqdm import tqdm

Rankings = dict[str, list[Document]]
evaluator = pytrec_eval.RelevanceEvaluator(catalogue.qrels, {"ndcg_cut_10", "recall_50"})


def measure(rankings: Rankings) -> pd.DataFrame:
    """NDCG@10 and recall@50 of each query."""
    runs = {
        id: {document.metadata["id"]: 1 / rank for rank, document in enumerate(ranking, 1)}
        for id, ranking in rankings.items()
    }
    return pd.DataFrame(evaluator.evaluate(runs)).T.rename(columns={"ndcg_cut_10": "NDCG@10", "recall_50": "recall@50"})


stages: dict[str, Rankings] = {"words (BM25)": {}, "meaning (dense)": {}, "hybrid": {}, "dense, reranked": {}}
for id, text in tqdm(catalogue.queries.items(), desc="queries"):
    stages["words (BM25)"][id] = words.similarity_search(text, k=50)
    stages["meaning (dense)"][id] = dense.similarity_search(text, k=50)
    stages["hybrid"][id] = hybrid.similarity_search(text, k=50)
    stages["dense, reranked"][id] = reranking.invoke(text)
reranked = stages["dense, reranked"]
quality = pd.DataFrame({name: measure(rankings).mean() for name, rankings in stages.items()}).T
quality[["NDCG@10", "recall@50"]].style.format("{:.3f}")

# %% [markdown]
# One query weighs 1/60 here: when one goes from all wrong to all right, NDCG moves by 0.017. Differences below 0.03
# mean nothing. By that measure, the embedded models say:
#
# - Meaning finds more than words. For "hands and feet always cold in winter", BM25 has none of the right products, as
#   none of them says so in these words.
# - Hybrid search gains nothing here, it rather loses. It may pay where people search for article numbers and rare
#   names. Measure before you switch it on.
# - The embedded reranker gains nothing that 60 queries could show. It is MiniLM again, comparing the words of query
#   and product one by one: enough to try the chain out. A real reranker (Qwen3-Reranker, bge-reranker-v2-m3) can know
#   that a strap for earbuds is no pair of earbuds. We will meet that strap again.
#
# So the chain goes on with dense recall.
#
# ## What people try first
#
# Three ways of preferring what is cheap and sells, for one query and the same 50 candidates, beside the reranked
# list. `grade` is what the judge said.


# %%
def column(results: list[Document], key: str) -> np.ndarray:
    return np.array([document.metadata[key] for document in results], dtype=float)


def scaled(values: np.ndarray) -> np.ndarray:
    """Min-max: the smallest is 0, the largest 1."""
    return (values - values.min()) / max(np.ptp(values), 1e-9)


def sorted_by_price(results: list[Document], n: int) -> list[Document]:
    """The first n, sorted by price; then the others."""
    return sorted(results[:n], key=lambda document: document.metadata["price"]) + results[n:]


def weighted_sum(results: list[Document], weight: float) -> list[Document]:
    """Score, price and sales, each scaled among the candidates, weighted and added."""
    total = (
        (1 - 2 * weight) * scaled(column(results, "relevance_score"))
        + weight * (1 - scaled(column(results, "price")))
        + weight * scaled(column(results, "sales"))
    )
    return [results[i] for i in np.argsort(-total, kind="stable")]


def boosted(text: str, weight: float, filter: models.Filter | None = None) -> list[Document]:
    """Qdrant's score boosting: the server multiplies the score of the vector search by what price and sales deserve."""
    price, sales = float(products["price"].median()), float(products["sales"].median())
    cheap = models.DivParams(left=price, right=models.SumExpression(sum=["metadata.price", price]))
    sells = models.DivParams(left="metadata.sales", right=models.SumExpression(sum=["metadata.sales", sales]))
    boosts = [models.MultExpression(mult=[weight, models.DivExpression(div=part)]) for part in (cheap, sells)]
    points = client.query_points(
        "shop-en",
        prefetch=models.Prefetch(query=embeddings.embed_query(text), filter=filter, limit=50),
        query=models.FormulaQuery(
            formula=models.MultExpression(mult=["$score", models.SumExpression(sum=[1.0, *boosts])]),
            defaults={"metadata.price": price, "metadata.sales": sales},  # where a product has none
        ),
        limit=50,
    ).points
    return [Document(point.payload["page_content"], metadata=point.payload["metadata"]) for point in points]


def graded(query: str, results: list[Document]) -> pd.DataFrame:
    """A table with the grades of the judge."""
    qrels = next(catalogue.qrels[id] for id, text in catalogue.queries.items() if text == query)
    return table(results).assign(grade=[qrels.get(document.metadata["id"], 0) for document in results])


candidates = reranking.invoke(query, filter=buyable())
pd.concat(
    {
        "reranked": graded(query, candidates[:5]),
        "first 20 sorted by price": graded(query, sorted_by_price(candidates, 20)[:5]),
        "weighted sum": graded(query, weighted_sum(candidates, 0.3)[:5]),
        "Qdrant formula": graded(query, boosted(query, 1, buyable())[:5]),
    }
)

# %% [markdown]
# Straps, ear tips, a silicone case; in the weighted sum even ear plugs for sleeping.
#
# - Sorting throws relevance away.
# - In a sum, price and sales pay for relevance: enough of them buys any place.
# - The formula in Qdrant multiplies, which is right, but it multiplies cosines, and these are too close to each
#   other. It also sees recall only: a reranker that comes after it sorts anew. Use it to widen recall towards
#   best-sellers, if they do not make it into the 50 candidates.
#
# ## Relevance as a probability
#
# Multiplying makes sense when half as high a score means half as relevant. That holds for a probability. Real
# rerankers give one; the embedded one gives cosines. `calibrate` fits a probability from judged pairs, whatever the
# scores are. (It also mends the probabilities of a reranker that is too sure of itself.)
#
# The queries are split into two halves. What is fitted on one half is used on the other alone, here and further down.

# %%
from ragpair.calibrate import Calibration, calibrate

halves = list(catalogue.queries)[::2], list(catalogue.queries)[1::2]
score_kind = reranker.reranker.describe()["score_kind"]
calibrations = {}


def judged(ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The scores of all candidates of these queries, and which of them are relevant."""
    scores = np.concatenate([column(reranked[id], "relevance_score") for id in ids])
    relevant = [catalogue.qrels[id].get(document.metadata["id"], 0) >= 2 for id in ids for document in reranked[id]]
    return scores, np.array(relevant)


for fitted, reported in (halves, halves[::-1]):
    calibration = calibrate(*judged(fitted), score_kind=score_kind)
    calibrations.update(dict.fromkeys(reported, calibration))
    print(f"{score_kind}: {calibration}")

ratios = {"score": [], "probability": []}
for id, results in reranked.items():
    scores = column(results, "relevance_score")
    ratios["score"].append(scores[9] / scores[0])
    ratios["probability"].append(np.divide(*calibrations[id].probability(scores[[9, 0]])))
pd.DataFrame(
    {"the tenth candidate, as a share of the first": {name: np.mean(found) for name, found in ratios.items()}}
).style.format("{:.0%}")

# %% [markdown]
# The tenth candidate is hardly ever what was asked for. Its cosine is 53 % of the first one's, so a factor of two
# lifts it to the top. Its probability is 12 %, and it would take a factor of eight.
#
# ## Blend
#
# `RagpairSignalBlend` stands behind the reranker, in LangChain's own pipeline. It computes
#
# $$\text{blended} = \text{relevance} \cdot \frac{1 + \sum |w| \cdot s}{1 + \sum |w|}$$
#
# where `s` says how good a price or a number of sales is beside the typical one among the relevant candidates: 0.5
# for the typical price, 0.67 for half of it, 0.33 for the double, never below 0 or above 1. A negative weight prefers
# less, a positive one more. So price and sales scale relevance and cannot replace it, and there is a bound: with two
# weights of 0.5, nothing overtakes what is more than 1 + 0.5 + 0.5 = 2 times as relevant.

# %%
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline

from langchain_ragpair import RagpairSignalBlend


def shop_search(calibration: Calibration) -> ContextualCompressionRetriever:
    """Recall, rerank, blend: the whole chain. In production it is made once."""
    blend = RagpairSignalBlend(weights={"price": -0.5, "sales": 0.5}, calibration=calibration, top_n=5)
    pipeline = DocumentCompressorPipeline(transformers=[reranker, blend])
    return ContextualCompressionRetriever(base_compressor=pipeline, base_retriever=recall)


def before_and_after(query: str) -> pd.DataFrame:
    """The first five without and with the blend."""
    id = next(id for id, text in catalogue.queries.items() if text == query)
    before, after = reranking, shop_search(calibrations[id])
    lists = {
        "before": before.invoke(query, filter=buyable())[:5],
        "after": after.invoke(query, filter=buyable()),
    }
    return pd.concat(
        {
            name: graded(query, results).assign(
                relevance=calibrations[id].probability(column(results, "relevance_score"))
            )
            for name, results in lists.items()
        }
    )


FORMAT = {"price": "${:.2f}", "sales": "{:,}", "relevance": "{:.2f}"}
before_and_after("dog bed").style.format(FORMAT)

# %% [markdown]
# The best-selling bed, which is also the cheapest, comes first, and the expensive one moves down. The leash costs less
# and sells more than any bed; it passes the dog food and stays behind the beds, because it is not a bed. (The weights
# of 0.5 are there to make the effect visible. How to choose them is below.)
#
# And this is what the blend cannot do:

# %%
before_and_after("wireless earbuds for running").style.format(FORMAT)

# %% [markdown]
# The small model takes the strap for earbuds: it gives it more relevance than the earbuds for $39.99, and as much to
# the case. The blend believes it, and as they cost little and sell a lot, they come first. No blend mends a relevance
# that is wrong; it shows the mistake to more people. That is what a real reranker is for.
#
# How often does it go which way? What stands first in the 60 queries, by its grade:


# %%
def blended(id: str, cheap: float, sells: float, n: int | None = None) -> list[Document]:
    """The reranked candidates of a query, blended."""
    blend = RagpairSignalBlend(weights={"price": -cheap, "sales": sells}, calibration=calibrations[id], top_n=n)
    return blend.compress_documents(reranked[id], catalogue.queries[id])


def first_grade(ranking: list[Document], id: str) -> int:
    return catalogue.qrels[id].get(ranking[0].metadata["id"], 0)


def better_buy(after: list[Document], before: list[Document], id: str) -> bool:
    """Whether what stands first now is as good as what did before, costs less and sells more."""
    new, old = after[0].metadata, before[0].metadata
    same = first_grade(after, id) == first_grade(before, id)
    return same and new["price"] < old["price"] and new["sales"] > old["sales"]


WEIGHTS = [0, 0.1, 0.25, 0.5, 1, 2, 4, 8, 64]
by_weight = {weight: {id: blended(id, weight, weight) for id in catalogue.queries} for weight in WEIGHTS}
firsts = {
    weight: {
        "another product first": sum(
            rankings[id][0].metadata["id"] != reranked[id][0].metadata["id"] for id in rankings
        ),
        "a better one": sum(first_grade(rankings[id], id) > first_grade(reranked[id], id) for id in rankings),
        "a worse one": sum(first_grade(rankings[id], id) < first_grade(reranked[id], id) for id in rankings),
        "as good, cheaper and sells more": sum(better_buy(rankings[id], reranked[id], id) for id in rankings),
    }
    for weight, rankings in by_weight.items()
}
firsts = pd.DataFrame(firsts).T.rename_axis("both weights")
firsts

# %% [markdown]
# With weights of 0.5, 16 queries get another first product, and in 12 of them a worse one: an accessory, or a
# neighbour of what was asked for. That is beyond what this small reranker can bear. With 0.1 it is 4 queries, and 3
# of them get a worse one.
#
# ### Slide it yourself
#
# In Jupyter this cell has sliders. On a page without a kernel, the table below shows some of their positions.
# Reranking was done once, and blending takes less than a millisecond, so the list follows the hand.

# %%
from ipywidgets import FloatSlider, interact


@interact(
    query=list(catalogue.queries.values()),
    cheap=FloatSlider(value=0.5, min=0, max=4, step=0.1),
    sells=FloatSlider(value=0.5, min=0, max=4, step=0.1),
)
def show(query: str, cheap: float, sells: float) -> pd.DataFrame:
    id = next(id for id, text in catalogue.queries.items() if text == query)
    return graded(query, blended(id, cheap, sells, 5))


# %%
pd.DataFrame(
    {
        f"price {-cheap:g}, sales {sells:g}": [
            f"{document.metadata['title'].split(',')[0]}, ${document.metadata['price']:.2f}, "
            f"{document.metadata['sales']:,} sold"
            for document in blended("q12", cheap, sells, 4)
        ]
        for cheap, sells in ((0, 0), (1, 0), (0, 1), (1, 1))
    },
    index=range(1, 5),
).T.rename_axis("green tea").style  # as a plain table it would be cut off

# %% [markdown]
# ## What each weight costs
#
# All 60 queries, with both weights alike. Prices and sales of the first five are means; those of the first product
# are geometric means over the queries, or the few expensive ones would decide.


# %%
def shown(rankings: Rankings) -> dict[str, float]:
    """NDCG@10, and what the first five and the first product cost and sell."""

    def top(key: str) -> float:
        return float(np.mean([column(ranking[:5], key).mean() for ranking in rankings.values()]))

    def first(key: str) -> float:
        return float(np.expm1(np.mean([np.log1p(ranking[0].metadata[key]) for ranking in rankings.values()])))

    return {
        "NDCG@10": measure(rankings)["NDCG@10"].mean(),
        "price, top 5": top("price"),
        "sales, top 5": top("sales"),
        "price, first": first("price"),
        "sales, first": first("sales"),
    }


NUMBERS = {
    "NDCG@10": "{:.3f}",
    "price, top 5": "${:.2f}",
    "sales, top 5": "{:,.0f}",
    "price, first": "${:.2f}",
    "sales, first": "{:,.0f}",
}
costs = pd.DataFrame({weight: shown(rankings) for weight, rankings in by_weight.items()}).T
costs.rename(index="{:g}".format).rename_axis("both weights").style.format(NUMBERS)

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 3.5))
for name, style in {"sales, top 5": "C1:^", "NDCG@10": "k-o", "price, top 5": "C0--s"}.items():
    axis.plot(range(len(WEIGHTS)), costs[name] / costs[name].iloc[0] * 100, style, label=name)
axis.set_xticks(range(len(WEIGHTS)), WEIGHTS)
axis.set(xlabel="weight of price and of sales (uneven steps)", ylabel="% of the list without blend")
lost = 1 - costs["NDCG@10"].min() / costs["NDCG@10"].iloc[0]
axis.set_title(f"Weights up to {WEIGHTS[-1]:g} cost at most {lost:.1%} of NDCG@10")
axis.legend()
figure.tight_layout()

# %% [markdown]
# Beside what people try first, each with its weight (or its n) turned up from nothing:

# %%
steps = {
    "blend": by_weight,
    "weighted sum": {
        weight: {id: weighted_sum(ranking, weight) for id, ranking in reranked.items()}
        for weight in (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
    },
    "Qdrant formula": {
        weight: {id: boosted(text, weight) for id, text in catalogue.queries.items()}
        for weight in tqdm((0, 0.1, 0.25, 0.5, 1, 2, 8, 64), desc="formula")
    },
    "first n sorted by price": {
        n: {id: sorted_by_price(ranking, n) for id, ranking in reranked.items()} for n in (1, 2, 3, 5, 10)
    },
}
curves = {
    name: pd.DataFrame({step: shown(rankings) for step, rankings in found.items()}).T for name, found in steps.items()
}
MARKED = {  # the weight (or n) is written beside these points
    "blend": [0.5, 2, 64],
    "weighted sum": [0.1, 0.3],
    "Qdrant formula": [0.5, 2, 64],
    "first n sorted by price": [3, 10],
}
figure, axis = plt.subplots(figsize=(7, 3.5))
for (name, curve), style in zip(curves.items(), ["k-o", "C0--s", "C1:^", "C3-.x"], strict=True):
    axis.plot(curve["price, first"], curve["NDCG@10"], style, label=name)
    for step in MARKED[name]:
        point = curve.loc[step, ["price, first", "NDCG@10"]]
        axis.annotate(f"{step:g}", point, xytext=(4, 4), textcoords="offset points", fontsize=8)
axis.invert_xaxis()
axis.set(xlabel="price of the first product, $ (geometric mean), cheaper to the right", ylabel="NDCG@10")
ends = {name: curve["NDCG@10"].iloc[-1] for name, curve in curves.items() if name in ("blend", "Qdrant formula")}
axis.set_title(f"At weights of 64, NDCG@10 is {ends['blend']:.2f} blended, {ends['Qdrant formula']:.2f} by formula")
axis.legend(loc="lower left")
figure.tight_layout()

# %% [markdown]
# Read it from left to right. At first all curves are one: while weights are small, it does not matter much how you
# mix. (Sorting the first two or three by price does as well as anything by this axis, for it looks at the price
# alone, and so does the axis.) Further right the sum falls, to no relevance at all at a weight of 0.5, and so does
# sorting by price. What multiplies comes to an end: relevance stays a factor, and with very large weights the order
# tends to that of relevance times the mean of `s`. With probabilities that end is at 0.82. Qdrant's formula multiplies
# cosines, which are closer to each other, and ends at 0.65. So turned up, the blend loses least. That is its point:
# not a better average, but a weight that can be turned without breaking the search.
#
# How much of the cost is the small reranker's fault? Let the grades themselves be the relevance, as if a reranker
# made no mistake. The four probabilities are invented, and this is a ceiling, no result:

# %%
PERFECT = {3: 0.95, 2: 0.6, 1: 0.15, 0: 0.01}  # invented


def with_grades(id: str) -> list[Document]:
    return [
        document.model_copy(
            update={
                "metadata": {
                    **document.metadata,
                    "relevance_score": PERFECT[catalogue.qrels[id].get(document.metadata["id"], 0)],
                    "score_kind": "probability",
                }
            }
        )
        for document in reranked[id]
    ]


ceiling = {}
for weight in (0, 0.1, 0.25, 0.5, 1):
    blend = RagpairSignalBlend(weights={"price": -weight, "sales": weight}, top_n=None)
    ceiling[weight] = shown({id: blend.compress_documents(with_grades(id), "") for id in catalogue.queries})
ceiling = pd.DataFrame(ceiling).T
ceiling.rename(index="{:g}".format).rename_axis("both weights").style.format(NUMBERS)

# %% [markdown]
# With perfect relevance even the smallest weight does all there is to do, because it only has to choose among
# products that are equally right. Larger ones change next to nothing: at 1 a good alternative (0.6) comes within
# reach of what was asked for (0.95), and NDCG goes from 0.991 to 0.990. Between that and the table above lies what a
# better reranker is worth to you.
#
# ## Choose the weight
#
# Take the largest weight that costs less than 1 % of NDCG on one half of the queries. What it does on the other half
# is the honest number.

# %%
from itertools import takewhile


def largest_within_budget(mean: pd.Series) -> float:
    """The last weight before NDCG first falls below 99 % of that without blend."""
    return list(takewhile(lambda weight: mean[weight] >= 0.99 * mean[0], WEIGHTS))[-1]


ndcg = pd.DataFrame({weight: measure(rankings)["NDCG@10"] for weight, rankings in by_weight.items()})
chosen = {}
for name, fitted, reported in (("A, reported on B", *halves), ("B, reported on A", *halves[::-1])):
    weight = largest_within_budget(ndcg.loc[fitted].mean())
    for label, step in ("without", 0), (f"with {weight:g}", weight):
        chosen[f"chosen on {name}", label] = shown({id: by_weight[step][id] for id in reported})
chosen = pd.DataFrame(chosen).T
chosen.style.format(NUMBERS)

# %%
small = by_weight[0.1]
pd.concat(
    {
        f"{catalogue.queries[id]}": pd.concat(
            [graded(catalogue.queries[id], reranked[id][:1]), graded(catalogue.queries[id], small[id][:1])]
        ).set_axis(["before", "after"])
        for id in catalogue.queries
        if small[id][0].metadata["id"] != reranked[id][0].metadata["id"]
    }
).style.format({"price": "${:.2f}", "sales": "{:,}"})

# %% [markdown]
# Both halves choose 0.1, the smallest weight there is. On the queries that had no part in the choice it costs 0.3 to
# 0.4 % of NDCG; the first product gets 18 % cheaper on one half and 7 % on the other, and sells 14 % and 24 % more.
# That sounds good, and it is not: all of it comes from the four queries above. One backpack is better than what it
# replaced. A strap instead of earbuds, a foam roller instead of an office chair and a speaker that is not waterproof
# are cheaper, and worse. With this reranker the blend gains nothing worth having.
#
# And 1 % of NDCG is 0.009, below the 0.03 that 60 queries can tell from noise. So the choice itself lies within the
# noise. It is the procedure to copy, with a few hundred queries; its result here means "small".
#
# ## The bound, on these queries
#
# Of all pairs where a less relevant product stands before a more relevant one: how many times as relevant is the one
# that was overtaken?


# %%
def worst(rankings: Rankings) -> float:
    """The largest relevance behind a product, as a multiple of its own."""
    ratios = [1.0]
    for id, ranking in rankings.items():
        relevance = calibrations[id].probability(column(ranking, "relevance_score"))
        ratios += [relevance[i + 1 :].max() / relevance[i] for i in range(len(relevance) - 1)]
    return max(ratios)


bounds = pd.DataFrame(
    {
        "promised: at most": {weight: 1 + 2 * weight for weight in WEIGHTS},
        "happened": {weight: worst(rankings) for weight, rankings in by_weight.items()},
    }
)
assert (bounds["happened"] <= bounds["promised: at most"] + 1e-9).all()
bounds.rename(index="{:g}".format).rename_axis("both weights").style.format("{:.2f}")

# %% [markdown]
# ## Cut off the tail
#
# `calibrate` also draws a line below which nothing is shown. By default it is the best F1. With `recall=0.95` it is
# the line that kept 95 % of the relevant candidates of the queries it was fitted on. On the other half:

# %%
tail = {}
for name, wanted in {"best F1": None, "recall=0.95": 0.95}.items():
    kept, relevant = [], []
    for fitted, reported in (halves, halves[::-1]):
        scores, labels = judged(reported)
        kept.append(scores >= calibrate(*judged(fitted), recall=wanted, score_kind=score_kind).threshold)
        relevant.append(labels)
    kept, relevant = np.concatenate(kept), np.concatenate(relevant)
    tail[name] = {
        "of the relevant, kept": kept[relevant].mean(),
        "of the others, kept": kept[~relevant].mean(),
        "products left, of 50": kept.sum() / len(reranked),
    }
tail = pd.DataFrame(tail).T
tail.style.format(
    {"of the relevant, kept": "{:.0%}", "of the others, kept": "{:.0%}", "products left, of 50": "{:.1f}"}
)

# %% [markdown]
# The best F1 is too strict for a shop: it drops four of ten relevant products. The line for recall keeps 95 % of them,
# here as on the half it was fitted on, and drops two thirds of the rest.
#
# ## Time
#
# Of one query at a time, on the machine that made this page.

# %%
import time
from collections.abc import Callable

sample = list(catalogue.queries)[:20]
recalled = {id: recall.invoke(catalogue.queries[id]) for id in sample}


def milliseconds(call: Callable[[str], object]) -> float:
    """The median over 20 queries."""
    times = []
    for id in sample:
        started = time.perf_counter()
        call(id)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


pd.DataFrame(
    {
        "median, ms": {
            "embed the query": milliseconds(lambda id: embeddings.embed_query(catalogue.queries[id])),
            "recall 50, dense, with that": milliseconds(lambda id: recall.invoke(catalogue.queries[id])),
            "recall 50, hybrid, with that": milliseconds(
                lambda id: hybrid.similarity_search(catalogue.queries[id], k=50)
            ),
            "rerank 50, seen before": milliseconds(
                lambda id: reranker.compress_documents(recalled[id], catalogue.queries[id])
            ),
            "blend 50": milliseconds(lambda id: blended(id, 0.5, 0.5)),
        }
    }
).style.format("{:.1f}")

# %%
headline = {
    "BM25 NDCG@10": quality.loc["words (BM25)", "NDCG@10"],
    "dense NDCG@10": quality.loc["meaning (dense)", "NDCG@10"],
    "hybrid NDCG@10": quality.loc["hybrid", "NDCG@10"],
    "rerank NDCG@10": quality.loc["dense, reranked", "NDCG@10"],
    "blend 0.5 NDCG@10": costs.loc[0.5, "NDCG@10"],
    "blend 64 NDCG@10": costs.loc[64, "NDCG@10"],
    "weighted sum 0.3 NDCG@10": curves["weighted sum"].loc[0.3, "NDCG@10"],
    "blend 0.1 sales of first, beside none": costs.loc[0.1, "sales, first"] / costs.loc[0, "sales, first"],
    "blend 0.5 price of first, beside none": costs.loc[0.5, "price, first"] / costs.loc[0, "price, first"],
    "blend 0.5 sales of first, beside none": costs.loc[0.5, "sales, first"] / costs.loc[0, "sales, first"],
    "perfect relevance, blend 0.5 NDCG@10": ceiling.loc[0.5, "NDCG@10"],
}
headline = {name: round(float(value), 3) for name, value in headline.items()}
headline

# %% [markdown]
# ## What you would change in production
#
# - **Models.** `vllm serve Qwen/Qwen3-Embedding-0.6B --runner pooling` for recall, and a reranker beside it: the
#   launch for Qwen3-Reranker-0.6B is in the [README](../README.md). Each has 1.2 GB of weights in 16 bits. Only the
#   two lines at the top change. A reranker's scores are probabilities then; calibrate them all the same, on 50 judged
#   queries of your own or more, and again whenever the model changes. A calibration for another kind of score is
#   refused.
# - **Qdrant.** A server, and the payload indexes before the data, so that the vector index is built for filtered
#   search. A million products with 1,024 dimensions are 4 GB of vectors; scalar quantization makes it 1 GB. Load
#   with ids that stay the same, as above, and not with `force_recreate`. Price, sales and stock change all day:
#   `client.set_payload("shop-en", {"price": 19.9}, key="metadata", points=[point_id("p001")])` does that without a
#   new vector.
# - **Signals.** Sales of the last 30 days, and `None` while a product is younger than that: it then counts as
#   typical, and gets its chance. What stands first sells more because it stands first; orders per impression are a
#   better signal than orders, and some random traffic keeps it honest. Take the price that the customer pays, per
#   unit where packs differ. Margin works the same way, and so does any number where 0 means nothing of it; for
#   ratings from 1 to 5, take `max(rating - 3, 0)`.
# - **Weights.** Labels set the ceiling, as above; an A/B test on orders sets the weight. Start at 0.1,
#   with a real reranker.
# - **Cut off the tail.** `RagpairRerank(..., min_score=calibrate(..., recall=0.95).threshold)`, measured above; better
#   five good products than ten with ear plugs among them.
# - **When the reranker is down.** With `plain = dense.as_retriever(search_kwargs={"k": 5})`,
#   `shop_search(calibration).with_fallbacks([plain], exceptions_to_handle=(EndpointError,))` shows what was recalled,
#   without the blend, and the shop stays open (`from ragpair import EndpointError`). Only what is wrong with a server
#   falls back: a calibration of another model or a price of "$19.90" should be seen. Give `RagpairRerank` a
#   `timeout=2` and `max_retries=0`, or the fallback comes late: the defaults wait two minutes, and try three times
#   more.
# - **Watch** how often the blend changes the first product, the relevance of what stands first, searches without a
#   click, and the 95th percentile of the reranker's time. Keep `relevance_score` and `blended_score` in the log: they
#   say which of the two put a product where it was.
# - **Left out here:** typos and synonyms, brands and prices read from the query into filters, variants of one product
#   side by side, personal taste, paid places. When you have clicks by the million, a learnt ranker (LambdaMART) takes
#   these signals and more; until then, and as its baseline, this is two weights that can be explained to anybody.
