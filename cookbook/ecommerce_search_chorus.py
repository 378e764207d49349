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
# # Product search on a real catalogue: relevance first, then price
#
# The chain of [ecommerce_search](ecommerce_search.ipynb) on data that nobody wrote for it: 2,517 real products, 135 queries of a
# shop, and 3,668 judgements by people, from 0 (wrong) to 3 (what I wanted). LangChain and Qdrant; ours are the lines with
# `Ragpair` in them.
#
# What you will find here:
#
# 1. how good recall, hybrid search and reranking are, and why these numbers must be taken inside the judged pools;
# 2. how to prefer cheap products without burying the relevant ones, beside three ways that people try first;
# 3. how to choose the weight of the price from labelled queries, and what it costs on queries that had no part in it.
#
# The data is Chorus, the example shop of the querqy project. It has prices, but no sales, so price is the only
# signal here. The ratings are Apache-2.0; the product texts are under the Open Content License, which is share-alike, so they
# stay outside this repository.

# %%
# pip install "ragpair[cookbook]"

# %% [markdown]
# Two lines say which models and which Qdrant. The embedded models need no server; everything below also runs on vLLM, SGLang or
# Ollama, and on a Qdrant server.

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local"}, {"base_url": "local", "scores": "raw"}
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}

# %%
import pandas as pd
from cookbook_data import chorus

shop = chorus.load()
products = {product.id: product for product in shop.products}
queries = {id: text for id, text in shop.queries.items() if max(shop.qrels[id].values()) >= 2}
print(f"{len(products):,} products, {len(shop.queries)} queries, {len(queries)} of them with a relevant product")
pd.DataFrame(shop.products)[["title", "brand", "price"]].head(5)

# %% [markdown]
# A product counts as relevant from grade 2 on. The queries without a relevant product ("flat screen tv", "iphone 8") are left
# out: no order of their results is better than another.
#
# ## Index
#
# One collection holds a dense vector and a BM25 vector of each product, so it can be searched by either or by both. Price and
# brand go into the metadata, which LangChain stores beside the text and does not embed. The ids of the points are those of the
# products.

# %%
import time

from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import models

from langchain_ragpair import RagpairEmbeddings, RagpairSparseEmbeddings

embeddings = RagpairEmbeddings(**EMBED, too_long="truncate")
sparse = RagpairSparseEmbeddings()
documents = [
    Document(
        f"{product.title}\n{product.description}",
        metadata={"id": product.id, "title": product.title, "brand": product.brand, "price": product.price},
    )
    for product in shop.products
]
started = time.perf_counter()
hybrid = QdrantVectorStore.from_documents(
    documents,
    embeddings,
    ids=[int(product.id) for product in shop.products],
    collection_name="chorus",
    force_recreate=True,
    retrieval_mode=RetrievalMode.HYBRID,
    sparse_embedding=sparse,
    sparse_vector_params={"modifier": models.Modifier.IDF},
    batch_size=256,
    **QDRANT,
)
print(f"indexed {len(documents):,} products in {time.perf_counter() - started:.0f} s")

dense = QdrantVectorStore(hybrid.client, "chorus", embeddings)
words = QdrantVectorStore(hybrid.client, "chorus", sparse_embedding=sparse, retrieval_mode=RetrievalMode.SPARSE)

# %% [markdown]
# `RetrievalMode.HYBRID` stands for one call of Qdrant's Query API: two searches, whose ranks the server fuses (reciprocal rank
# fusion). Here it is, spelled out. Write it yourself once you want another `limit` for each side, weights
# (`models.RrfQuery(rrf=models.Rrf(k=60, weights=[2, 1]))`), or a filter on one side only.

# %%
query = "wireless mouse"
by_words = sparse.embed_query(query)
found = hybrid.client.query_points(
    "chorus",
    prefetch=[
        models.Prefetch(query=embeddings.embed_query(query), limit=10),
        models.Prefetch(
            query=models.SparseVector(indices=by_words.indices, values=by_words.values),
            using="langchain-sparse",
            limit=10,
        ),
    ],
    query=models.FusionQuery(fusion=models.Fusion.RRF),
    limit=10,
).points
same = hybrid.similarity_search(query, k=10)
assert [point.payload["metadata"]["id"] for point in found] == [document.metadata["id"] for document in same]

# %% [markdown]
# Filters are Qdrant's own, on `metadata.<key>`, and hold for both sides:

# %%
under_20_dollars = models.Filter(
    must=[
        models.FieldCondition(key="metadata.price", range=models.Range(lte=20)),
        models.FieldCondition(key="metadata.brand", match=models.MatchAny(any=["Logitech", "Verbatim", "Kensington"])),
    ]
)
pd.DataFrame(document.metadata for document in hybrid.similarity_search(query, k=5, filter=under_20_dollars))[
    ["title", "brand", "price"]
]

# %% [markdown]
# ## Rerank
#
# A retriever that recalls, a compressor that sorts: LangChain's `ContextualCompressionRetriever`. `top_n=None` keeps
# all candidates; they are needed below. Arguments of `invoke` travel down to the search, so a filter can be given for each query.

# %%
from langchain_classic.retrievers import ContextualCompressionRetriever

from langchain_ragpair import RagpairRerank

reranker = RagpairRerank(**RERANK, top_n=None, too_long="truncate")
reranking = ContextualCompressionRetriever(
    base_compressor=reranker, base_retriever=dense.as_retriever(search_kwargs={"k": 60})
)
score_kind = reranker.reranker.describe()["score_kind"]
print("scores of this reranker:", score_kind)

# %% [markdown]
# ## Measure inside the judged pools
#
# People have judged 1 to 60 products a query, and nothing about the other 2,457 and more. Search the whole catalogue, and what comes up first is
# often unjudged. NDCG counts it as wrong, although nobody has looked at it, so a search that finds other products than those the judges
# were shown looks bad. Therefore each query is ranked inside its own pool, by a filter on the ids. The chain stays as it is.

# %%
import numpy as np
import pytrec_eval
from tqdm import tqdm

Ranking = dict[str, list[Document]]


def judged(query_id: str) -> models.Filter:
    """Only what has been judged for this query."""
    return models.Filter(must=[models.HasIdCondition(has_id=[int(id) for id in shop.qrels[query_id]])])


evaluator = pytrec_eval.RelevanceEvaluator({id: shop.qrels[id] for id in queries}, {"ndcg_cut_10"})


def ndcg(rankings: Ranking) -> pd.Series:
    """NDCG@10 of each query."""
    runs = {
        id: {document.metadata["id"]: 1 / rank for rank, document in enumerate(ranking, 1)}
        for id, ranking in rankings.items()
    }
    return pd.Series({id: row["ndcg_cut_10"] for id, row in evaluator.evaluate(runs).items()})


pools: dict[str, Ranking] = {"BM25": {}, "dense": {}, "hybrid": {}, "dense + rerank": {}}
whole: dict[str, Ranking] = {"BM25": {}, "dense": {}, "hybrid": {}}
for id, text in tqdm(queries.items(), desc="queries"):
    for name, store in ("BM25", words), ("dense", dense), ("hybrid", hybrid):
        pools[name][id] = store.similarity_search(text, k=60, filter=judged(id))
        whole[name][id] = store.similarity_search(text, k=10)
    pools["dense + rerank"][id] = reranking.invoke(text, filter=judged(id))

# %%
unjudged = {
    name: np.mean([doc.metadata["id"] not in shop.qrels[id] for id, ranking in rankings.items() for doc in ranking])
    for name, rankings in whole.items()
}
stages = pd.DataFrame(
    {
        "NDCG@10 in judged pools": {name: ndcg(rankings).mean() for name, rankings in pools.items()},
        "NDCG@10 whole catalogue": {name: ndcg(rankings).mean() for name, rankings in whole.items()},
        "unjudged in its top 10": unjudged,
    }
).loc[list(pools)]
stages.style.format("{:.3f}", na_rep="")

# %% [markdown]
# TEXT
#
# ## Relevance as a probability
#
# The blend multiplies relevance, so half as high a score must mean half as relevant. `calibrate` makes a probability of any score from judged
# pairs. Queries are split in two halves, and what is fitted on one is used on the other. Near-duplicates ("speaker", "speakers") must
# not be split up, or the halves would share answers: queries whose pools are alike, or that differ only in a space or
# an s, stay together.

# %%
import re
from itertools import combinations

from sklearn.model_selection import GroupKFold

from ragpair.calibrate import calibrate

group = {id: id for id in queries}
for a, b in combinations(queries, 2):
    shared, all_ = shop.qrels[a].keys() & shop.qrels[b].keys(), shop.qrels[a].keys() | shop.qrels[b].keys()
    alike = re.sub(r" |s\b", "", queries[a]) == re.sub(r" |s\b", "", queries[b])
    if alike or len(shared) > 0.4 * len(all_):
        group = {id: group[a] if name == group[b] else name for id, name in group.items()}

ids = np.array(list(queries))
halves = [ids[fold] for _, fold in GroupKFold(2).split(ids, groups=[group[id] for id in ids])]
reranked = pools["dense + rerank"]
calibrations = {}
for fitted, reported in (halves, halves[::-1]):
    pairs = [
        (document.metadata["relevance_score"], shop.qrels[id][document.metadata["id"]] >= 2)
        for id in fitted
        for document in reranked[id]
    ]
    found = calibrate(*zip(*pairs, strict=True), score_kind=score_kind)
    calibrations.update(dict.fromkeys(reported, found))
    print(f"fitted on {len(fitted)} queries: {found}")

# %% [markdown]
# ## Blend with the price

# %%
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline

from langchain_ragpair import RagpairSignalBlend

EXAMPLE = "q083"
blend = RagpairSignalBlend(weights={"price": -0.5}, calibration=calibrations[EXAMPLE], top_n=5)
search = ContextualCompressionRetriever(
    base_compressor=DocumentCompressorPipeline(transformers=[reranker, blend]),
    base_retriever=dense.as_retriever(search_kwargs={"k": 60}),
)


def table(id: str, results: list[Document]) -> pd.DataFrame:
    """Results as a shop shows them, with the judges' grades."""
    rows = pd.DataFrame([document.metadata for document in results], index=range(1, len(results) + 1))
    rows["relevance"] = calibrations[id].probability(rows["relevance_score"])
    rows["grade"] = [shop.qrels[id].get(product) for product in rows["id"]]
    return rows[["title", "price", "relevance", "grade"]]


pd.concat(
    {
        "before": table(EXAMPLE, reranked[EXAMPLE][:5]),
        "after": table(EXAMPLE, search.invoke(queries[EXAMPLE], filter=judged(EXAMPLE))),
    }
).style.format({"price": "${:.2f}", "relevance": "{:.2f}"})

# %% [markdown]
# ## What it costs, beside what people try first


# %%
import matplotlib.pyplot as plt


def prices(results: list[Document]) -> np.ndarray:
    return np.array([document.metadata["price"] for document in results])


def blended(id: str, weight: float) -> list[Document]:
    blend = RagpairSignalBlend(weights={"price": -weight}, calibration=calibrations[id], top_n=None)
    return blend.compress_documents(reranked[id], queries[id])


def weighted_sum(id: str, weight: float) -> list[Document]:
    """Score and price min-max scaled among the candidates, then added."""

    def scaled(values: np.ndarray) -> np.ndarray:
        return (values - values.min()) / max(np.ptp(values), 1e-9)

    scores = np.array([document.metadata["relevance_score"] for document in reranked[id]])
    total = (1 - weight) * scaled(scores) + weight * (1 - scaled(prices(reranked[id])))
    return [reranked[id][i] for i in np.argsort(-total, kind="stable")]


def sorted_by_price(id: str, n: int) -> list[Document]:
    return sorted(reranked[id][:n], key=lambda document: document.metadata["price"]) + reranked[id][n:]


typical = float(np.median([product.price for product in shop.products]))


def boosted_recall(id: str, weight: float) -> list[Document]:
    """Qdrant's score boosting: the score of the vector search times 1 + weight * pivot / (price + pivot), on the server."""
    cheap = models.DivExpression(
        div=models.DivParams(left=typical, right=models.SumExpression(sum=["metadata.price", typical]))
    )
    boost = models.SumExpression(sum=[1.0, models.MultExpression(mult=[weight, cheap])])
    points = dense.client.query_points(
        "chorus",
        prefetch=models.Prefetch(query=embeddings.embed_query(queries[id]), filter=judged(id), limit=60),
        query=models.FormulaQuery(formula=models.MultExpression(mult=["$score", boost])),
        limit=60,
    ).points
    return [Document(point.payload["page_content"], metadata=point.payload["metadata"]) for point in points]


unblended = ndcg(reranked)


def shown(rankings: Ranking) -> dict[str, float]:
    """NDCG, the price of the first five beside that without blend, and how many queries lose much."""
    ratios = [prices(rankings[id][:5]).mean() / prices(reranked[id][:5]).mean() for id in rankings]
    return {
        "NDCG@10": ndcg(rankings).mean(),
        "mean price of top 5": np.mean([prices(ranking[:5]).mean() for ranking in rankings.values()]),
        "price beside unblended": np.exp(np.mean(np.log(ratios))),
        "queries that lose 0.2 or more": (unblended - ndcg(rankings) >= 0.2).sum(),
    }


WEIGHTS = [0, 0.1, 0.25, 0.5, 1, 2, 4]
STEPS = {
    "blend": (blended, WEIGHTS),
    "weighted sum": (weighted_sum, [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]),
    "Qdrant formula": (boosted_recall, [0, 0.25, 0.5, 1, 2]),
    "first n sorted by price": (sorted_by_price, [1, 3, 5, 10, 20]),
}
rankings = {
    name: {step: {id: method(id, step) for id in queries} for step in steps} for name, (method, steps) in STEPS.items()
}
curves = {
    name: pd.DataFrame({step: shown(found) for step, found in steps.items()}).T for name, steps in rankings.items()
}
costs = pd.concat(curves, names=["method", "weight or n"])
costs.style.format(
    {
        "NDCG@10": "{:.3f}",
        "mean price of top 5": "${:.2f}",
        "price beside unblended": "{:.0%}",
        "queries that lose 0.2 or more": "{:.0f}",
    }
)

# %%
figure, axis = plt.subplots(figsize=(7, 3.5))
for (name, curve), style in zip(curves.items(), ["k-o", "C0--s", "C1:^", "C3-.x"], strict=True):
    axis.plot(100 * curve["price beside unblended"], curve["NDCG@10"], style, label=name)
axis.set(xlabel="price of the top 5, % of that without blend", ylabel="NDCG@10", title="FINDING")
axis.legend()
figure.tight_layout()

# %% [markdown]
# ## Choose the weight

# %%
by_weight = pd.DataFrame({weight: ndcg(found) for weight, found in rankings["blend"].items()})
rows = {}
for fitted, reported in (halves, halves[::-1]):
    mean = by_weight.loc[fitted].mean()
    weight = max(w for w in WEIGHTS if mean[w] >= 0.99 * mean[0])
    rows[f"fitted on {len(fitted)}, reported on {len(reported)}"] = {
        "weight": weight,
        "NDCG@10 before": by_weight.loc[reported, 0].mean(),
        "NDCG@10 after": by_weight.loc[reported, weight].mean(),
        "price beside unblended": shown({id: rankings["blend"][weight][id] for id in reported})[
            "price beside unblended"
        ],
    }
chosen = pd.DataFrame(rows).T
chosen.style.format(
    {"weight": "{:g}", "NDCG@10 before": "{:.3f}", "NDCG@10 after": "{:.3f}", "price beside unblended": "{:.0%}"}
)

# %%
headline = {
    "BM25 NDCG@10": stages.iloc[0, 0],
    "dense NDCG@10": stages.iloc[1, 0],
    "hybrid NDCG@10": stages.iloc[2, 0],
    "rerank NDCG@10": stages.iloc[3, 0],
    "unjudged in dense top 10": unjudged["dense"],
    "blend 0.5 NDCG@10": curves["blend"].loc[0.5, "NDCG@10"],
    "blend 0.5 price": curves["blend"].loc[0.5, "price beside unblended"],
    "weighted sum 0.5 NDCG@10": curves["weighted sum"].loc[0.5, "NDCG@10"],
}
headline = {name: round(float(value), 3) for name, value in headline.items()}
headline

# %% [markdown]
# ## What you would change in production
#
# TEXT
