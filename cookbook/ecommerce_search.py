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
# A shop wants two things of its search. What comes first must be what was asked for. And among what was asked for, what is cheap
# and sells well should come before what is dear and lies on the shelf. Sorting by price puts ear tips before earbuds. This notebook
# does it with LangChain and Qdrant:
#
# `recall (vectors, or vectors and words) → filters → rerank by relevance → blend with price and sales`
#
# and measures each step on 60 graded queries: what it finds, what it costs, and how far each weight may be turned.
# [The same in Chinese](ecommerce_search_zh.ipynb) · [with LlamaIndex](ecommerce_search_llamaindex.ipynb) ·
# [on a real catalogue](ecommerce_search_chorus.ipynb)

# %%
# pip install "ragpair[cookbook]"

# %% [markdown]
# These lines say which models and which Qdrant. The embedded models need no server and are small; everything below runs as it
# is on vLLM, SGLang or Ollama, and on a Qdrant server.

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local"}, {"base_url": "local", "scores": "raw"}
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}

# %% [markdown]
# ## The shop
#
# 255 invented products with prices, units sold in the last 30 days, ratings and stock, and 60 queries, each judged
# against all products: 3 what is asked for, 2 a good alternative, 1 related (an accessory, say), 0 the rest.
# [How it was written](data/shop/README.md). As in real shops, accessories are cheap and sell well.

# %%
import pandas as pd
from cookbook_data import shop

catalogue = shop.load("en")
products = pd.DataFrame(catalogue.products)
products[["title", "brand", "price", "sales", "rating", "in_stock"]].head(4)

# %% [markdown]
# ## Index
#
# The text that is embedded is title and description. Everything else goes into the metadata, which LangChain stores beside it.
# One collection holds a dense vector and a BM25 vector for each product. BM25 needs the IDF modifier, which makes
# rare words count more. Fields that are filtered get an index on the server.

# %%
import warnings

from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import models

from langchain_ragpair import RagpairEmbeddings, RagpairSparseEmbeddings

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
hybrid = QdrantVectorStore.from_documents(
    documents,
    embeddings,
    collection_name="shop-en",
    force_recreate=True,
    retrieval_mode=RetrievalMode.HYBRID,
    sparse_embedding=bm25,
    sparse_vector_params={"modifier": models.Modifier.IDF},
    **QDRANT,
)
client = hybrid.client
dense = QdrantVectorStore(client, "shop-en", embeddings)
words = QdrantVectorStore(client, "shop-en", retrieval_mode=RetrievalMode.SPARSE, sparse_embedding=bm25)

with (
    warnings.catch_warnings()
):  # in memory there are no indexes, and Qdrant says so; on a server they make filters fast
    warnings.filterwarnings("ignore", "Payload indexes have no effect")
    for field, kind in {"in_stock": "bool", "price": "float", "brand": "keyword"}.items():
        client.create_payload_index("shop-en", f"metadata.{field}", models.PayloadSchemaType(kind))

# %% [markdown]
# ## Filters
#
# What must hold is a filter, not a score: in stock, within the price range, of this brand. Qdrant applies filters while it
# searches, so that 50 candidates are 50 candidates that may be sold.


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
    columns = ["title", "price", "sales", *more]
    return pd.DataFrame([document.metadata for document in results], index=range(1, len(results) + 1))[columns]


query = "wireless earbuds for running"
table(dense.similarity_search(query, k=3, filter=buyable(20, 60, ["Zivoka", "Nembora"])), "brand")

# %% [markdown]
# ## Words and meaning
#
# `RetrievalMode.HYBRID` is one call of Qdrant's Query API: two searches, and the server fuses their ranks. Spelled out:

# %%
in_words = bm25.embed_query(query)
found = client.query_points(
    "shop-en",
    prefetch=[
        models.Prefetch(query=embeddings.embed_query(query), filter=buyable(), limit=10),
        models.Prefetch(
            query=models.SparseVector(indices=in_words.indices, values=in_words.values),
            using="langchain-sparse",
            filter=buyable(),
            limit=10,
        ),
    ],
    query=models.FusionQuery(
        fusion=models.Fusion.RRF
    ),  # or RrfQuery(rrf=Rrf(k=60, weights=[3, 1])): meaning counts more
    limit=10,
).points
same = hybrid.similarity_search(query, k=10, filter=buyable())
assert {point.payload["metadata"]["id"] for point in found} == {document.metadata["id"] for document in same}

# %% [markdown]
# ## Rerank
#
# A reranker reads query and product together. In LangChain it is the compressor of a `ContextualCompressionRetriever`. `top_n=None`
# keeps all 50 candidates, with their relevance in `metadata["relevance_score"]`; the blend needs them.

# %%
from langchain_classic.retrievers import ContextualCompressionRetriever

from langchain_ragpair import RagpairRerank

reranker = RagpairRerank(**RERANK, top_n=None)
recall = dense.as_retriever(search_kwargs={"k": 50})
reranking = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=recall)

# %% [markdown]
# ## How good is each step?

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
    return pd.DataFrame(evaluator.evaluate(runs)).T


stages: dict[str, Rankings] = {"words (BM25)": {}, "meaning (dense)": {}, "hybrid": {}, "dense + rerank": {}}
for id, text in tqdm(catalogue.queries.items(), desc="queries"):
    stages["words (BM25)"][id] = words.similarity_search(text, k=50)
    stages["meaning (dense)"][id] = dense.similarity_search(text, k=50)
    stages["hybrid"][id] = hybrid.similarity_search(text, k=50)
    stages["dense + rerank"][id] = reranking.invoke(text)
reranked = stages["dense + rerank"]
quality = pd.DataFrame({name: measure(rankings).mean() for name, rankings in stages.items()}).T
quality.rename(columns={"ndcg_cut_10": "NDCG@10", "recall_50": "recall@50"}).style.format("{:.3f}")

# %% [markdown]
# TEXT: numbers
#
# ## What goes wrong without a blend
#
# The three things that people try first, for one query, on the same 50 candidates.


# %%
def scaled(values: list[float]) -> np.ndarray:
    """Min-max: the smallest 0, the largest 1."""
    array = np.asarray(values, dtype=float)
    return (array - array.min()) / max(np.ptp(array), 1e-9)


def column(results: list[Document], key: str) -> list[float]:
    return [document.metadata[key] for document in results]


def sort_by_price(results: list[Document], n: int) -> list[Document]:
    """Rerank, take the first n, sort them by price."""
    return sorted(results[:n], key=lambda document: document.metadata["price"]) + results[n:]


def weighted_sum(results: list[Document], weight: float) -> list[Document]:
    """Everything min-max scaled among the candidates, then added."""
    score = (
        (1 - 2 * weight) * scaled(column(results, "relevance_score"))
        + weight * (1 - scaled(column(results, "price")))
        + weight * scaled(column(results, "sales"))
    )
    return [results[i] for i in np.argsort(-score, kind="stable")]


def boosted_recall(text: str, weight: float, filter: models.Filter | None = None) -> list[Document]:
    """Qdrant's score boosting: price and sales multiplied into the score of the vector search, on the server."""
    price, sales = float(products["price"].median()), float(products["sales"].median())
    cheap = models.DivExpression(
        div=models.DivParams(left=price, right=models.SumExpression(sum=["metadata.price", price]))
    )
    sells = models.DivExpression(
        div=models.DivParams(left="metadata.sales", right=models.SumExpression(sum=["metadata.sales", sales]))
    )
    boost = models.SumExpression(sum=[1.0, *(models.MultExpression(mult=[weight, part]) for part in (cheap, sells))])
    points = client.query_points(
        "shop-en",
        prefetch=models.Prefetch(query=embeddings.embed_query(text), filter=filter, limit=50),
        query=models.FormulaQuery(formula=models.MultExpression(mult=["$score", boost])),
        limit=50,
    ).points
    return [Document(point.payload["page_content"], metadata=point.payload["metadata"]) for point in points]


candidates = reranking.invoke(query, filter=buyable())
pd.concat(
    {
        "reranked": table(candidates[:5]),
        "first 20 sorted by price": table(sort_by_price(candidates, 20)[:5]),
        "weighted sum, 0.3 each": table(weighted_sum(candidates, 0.3)[:5]),
        "Qdrant formula, 1 each": table(boosted_recall(query, 1, buyable())[:5]),
    }
)

# %% [markdown]
# TEXT
#
# ## Relevance as a probability
#
# Half as high a score must mean half as relevant, or multiplying means nothing. Rerankers that give probabilities are near that; the embedded one gives cosines,
# of which nobody knows what 0.5 means in this shop. `calibrate` makes a probability from judged pairs, whatever the scores are, and a threshold along with it.
# Queries are split in two halves. What is fitted on one half is only ever used on the other.

# %%
from ragpair.calibrate import calibrate

halves = list(catalogue.queries)[::2], list(catalogue.queries)[1::2]
score_kind = reranker.reranker.describe()["score_kind"]


def grade(id: str, document: Document) -> int:
    return catalogue.qrels[id].get(document.metadata["id"], 0)


calibrations = {}
for fitted, reported in (halves, halves[::-1]):
    pairs = [
        (document.metadata["relevance_score"], grade(id, document) >= 2) for id in fitted for document in reranked[id]
    ]
    found = calibrate(*zip(*pairs, strict=True), score_kind=score_kind)
    calibrations.update(dict.fromkeys(reported, found))
    print(f"{score_kind}: {found}")

# %% [markdown]
# ## Blend
#
# `RagpairSignalBlend` stands behind the reranker, in LangChain's own pipeline:
#
# `blended = relevance × (1 + Σ |w| · s) / (1 + Σ |w|)`
#
# `s` runs from 0 to 1: 0.5 for the typical price (or sales) among the relevant candidates, 0.67 for half of that price, 0.33 for the double. A negative weight prefers less, a
# positive one more. Relevance multiplies, so what is irrelevant stays down, and the signals are bounded: with both weights at 1, nothing overtakes
# what is more than 1 + 1 + 1 = 3 times as relevant.

# %%
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline

from langchain_ragpair import RagpairSignalBlend

calibration = calibrations["q16"]  # q16 is the query of this example; in production, fit on all that you have
blend = RagpairSignalBlend(weights={"price": -0.5, "sales": 0.5}, calibration=calibration, top_n=5)
search = ContextualCompressionRetriever(
    base_compressor=DocumentCompressorPipeline(transformers=[reranker, blend]),
    base_retriever=dense.as_retriever(search_kwargs={"k": 50, "filter": buyable()}),
)


def with_relevance(results: list[Document]) -> pd.DataFrame:
    scores = column(results, "relevance_score")
    return table(results).assign(relevance=calibration.probability(scores).round(2))


pd.concat({"before": with_relevance(candidates[:5]), "after": with_relevance(search.invoke(query))}).style.format(
    {"price": "${:.2f}", "sales": "{:,}", "relevance": "{:.2f}"}
)

# %% [markdown]
# TEXT
#
# ### Slide it yourself
#
# In Jupyter this draws sliders; on a page without a kernel, the table below it shows some of their positions. Reranking is done once, blending
# 50 candidates takes less than a millisecond, so the slider follows the hand.

# %%
from ipywidgets import FloatSlider, interact


def blended(id: str, cheap: float, sells: float, n: int | None = None) -> list[Document]:
    """The reranked candidates of a query, blended."""
    blend = RagpairSignalBlend(weights={"price": -cheap, "sales": sells}, calibration=calibrations[id], top_n=n)
    return blend.compress_documents(reranked[id], catalogue.queries[id])


@interact(
    id={text: id for id, text in catalogue.queries.items()},
    cheap=FloatSlider(value=0.5, min=0, max=4, step=0.1),
    sells=FloatSlider(value=0.5, min=0, max=4, step=0.1),
)
def show(id: str, cheap: float, sells: float) -> pd.DataFrame:
    return with_relevance(blended(id, cheap, sells, 5))


# %%
pd.DataFrame(
    {
        f"both weights {weight:g}": [
            f"{doc.metadata['title'].split(',')[0]} (${doc.metadata['price']:.2f}, {doc.metadata['sales']:,} sold)"
            for doc in blended("q16", weight, weight, 5)
        ]
        for weight in (0, 0.5, 2)
    },
    index=range(1, 6),
)

# %% [markdown]
# ## What each weight costs
#
# All 60 queries, both weights alike.

# %%
import matplotlib.pyplot as plt


def shown(rankings: Rankings) -> dict[str, float]:
    """NDCG@10, and what the first five and the first product cost and sell."""
    mean = {key: np.mean([np.mean(column(r[:5], key)) for r in rankings.values()]) for key in ("price", "sales")}
    first = {
        key: np.exp(np.mean([np.log(r[0].metadata[key] + 1) for r in rankings.values()])) for key in ("price", "sales")
    }
    return {
        "NDCG@10": measure(rankings)["ndcg_cut_10"].mean(),
        "price of top 5": mean["price"],
        "sales of top 5": mean["sales"],
        "price of first": first["price"],
        "sales of first": first["sales"],
    }


WEIGHTS = [0, 0.1, 0.25, 0.5, 1, 2, 4, 8]
by_weight = {weight: {id: blended(id, weight, weight) for id in catalogue.queries} for weight in WEIGHTS}
costs = pd.DataFrame({weight: shown(rankings) for weight, rankings in by_weight.items()}).T.rename_axis("weight")
costs.style.format(
    {"NDCG@10": "{:.3f}", "price of top 5": "${:.2f}", "price of first": "${:.2f}"}, precision=0, thousands=","
)

# %%
figure, axis = plt.subplots(figsize=(7, 3.5))
for name, style in {"NDCG@10": "k-o", "price of top 5": "C0--s", "sales of top 5": "C1:^"}.items():
    axis.plot(range(len(WEIGHTS)), costs[name] / costs[name].iloc[0] * 100, style, label=name)
axis.set_xticks(range(len(WEIGHTS)), WEIGHTS)
axis.set(xlabel="weight of price and of sales", ylabel="% of the list without blend", title="FINDING")
axis.legend()
figure.tight_layout()

# %%
methods = {
    "blend": {w: by_weight[w] for w in WEIGHTS},
    "weighted sum": {
        w: {id: weighted_sum(reranked[id], w) for id in reranked} for w in (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
    },
    "Qdrant formula": {
        w: {id: boosted_recall(text, w) for id, text in catalogue.queries.items()} for w in (0, 0.1, 0.25, 0.5, 1, 2)
    },
    "first n sorted by price": {n: {id: sort_by_price(reranked[id], n) for id in reranked} for n in (1, 2, 3, 5, 10)},
}
curves = {
    name: pd.DataFrame({step: shown(rankings) for step, rankings in steps.items()}).T for name, steps in methods.items()
}
figure, axis = plt.subplots(figsize=(7, 3.5))
for (name, curve), style in zip(curves.items(), ["k-o", "C0--s", "C1:^", "C3-.x"], strict=True):
    axis.plot(curve["price of first"], curve["NDCG@10"], style, label=name)
axis.set(xlabel="price of the first product, $ (geometric mean)", ylabel="NDCG@10", title="FINDING", ylim=(0.55, 0.92))
axis.legend()
figure.tight_layout()

# %% [markdown]
# TEXT
#
# ## Choose the weight
#
# The largest one that costs less than 1 % of NDCG on one half of the queries; what it costs on the other half is the honest number.

# %%
chosen = []
for fitted, reported in (halves, halves[::-1]):
    ndcg = pd.DataFrame({w: measure(rankings)["ndcg_cut_10"] for w, rankings in by_weight.items()})
    mean = ndcg.loc[fitted].mean()
    weight = max(w for w in WEIGHTS if mean[w] >= 0.99 * mean[0])
    before, after = ({id: by_weight[w][id] for id in reported} for w in (0, weight))
    chosen.append(
        {"weight": weight}
        | {f"{key}, before": value for key, value in shown(before).items()}
        | {f"{key}, after": value for key, value in shown(after).items()}
    )
chosen = pd.DataFrame(chosen, index=["fitted on A, reported on B", "fitted on B, reported on A"])
chosen.T.style.format(precision=3, thousands=",")

# %% [markdown]
# ## The bound, on the data


# %%
def worst_jump(rankings: Rankings) -> float:
    """How many times as relevant the most wronged product is as one that stands before it."""
    worst = 1.0
    for id, ranking in rankings.items():
        relevance = calibrations[id].probability(column(ranking, "relevance_score"))
        worst = max(worst, *(max(relevance[i + 1 :]) / relevance[i] for i in range(len(ranking) - 1)))
    return worst


pd.DataFrame(
    {
        "allowed: 1 + sum of weights": {w: 1 + 2 * w for w in WEIGHTS},
        "largest on these queries": {w: worst_jump(rankings) for w, rankings in by_weight.items()},
    }
).rename_axis("weight").style.format("{:.2f}")

# %% [markdown]
# ## Time

# %%
import time


def milliseconds(call) -> float:
    times = []
    for text in list(catalogue.queries.values())[:20]:
        started = time.perf_counter()
        call(text)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


recalled = {text: recall.invoke(text) for text in list(catalogue.queries.values())[:20]}
scored = {text: reranker.compress_documents(results, text) for text, results in recalled.items()}
pd.Series(
    {
        "embed the query": milliseconds(embeddings.embed_query),
        "recall 50, dense": milliseconds(recall.invoke),
        "recall 50, hybrid": milliseconds(lambda text: hybrid.similarity_search(text, k=50)),
        "rerank 50": milliseconds(lambda text: reranker.compress_documents(recalled[text], text)),
        "blend 50": milliseconds(lambda text: blend.compress_documents(scored[text], text)),
    },
    name="median, ms",
).to_frame().style.format("{:.1f}")

# %%
headline = {
    "BM25 NDCG@10": quality.loc["words (BM25)", "ndcg_cut_10"],
    "dense NDCG@10": quality.loc["meaning (dense)", "ndcg_cut_10"],
    "hybrid NDCG@10": quality.loc["hybrid", "ndcg_cut_10"],
    "rerank NDCG@10": quality.loc["dense + rerank", "ndcg_cut_10"],
    "blend 0.5 NDCG@10": costs.loc[0.5, "NDCG@10"],
    "blend 8 NDCG@10": costs.loc[8, "NDCG@10"],
    "weighted sum 0.3 NDCG@10": curves["weighted sum"].loc[0.3, "NDCG@10"],
    "blend 0.5 price of first": costs.loc[0.5, "price of first"] / costs.loc[0, "price of first"],
    "blend 0.5 sales of first": costs.loc[0.5, "sales of first"] / costs.loc[0, "sales of first"],
}
headline = {name: round(float(value), 3) for name, value in headline.items()}
headline

# %% [markdown]
# ## What you would change in production
#
# TEXT
