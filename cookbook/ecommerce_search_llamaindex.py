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
# # Product search with LlamaIndex: relevance first, then price and sales
#
# The chain of [ecommerce_search](ecommerce_search.ipynb), from LlamaIndex's own parts: an `IngestionPipeline` into Qdrant, a
# retriever with `MetadataFilters`, and two `node_postprocessors`, the reranker and the blend. Same shop, same queries, and
# where the same is computed, the same numbers. What the blend does and why, and how it compares with what people try first, is
# explained there; here is how it is put together.

# %%
# pip install "ragpair[cookbook]"

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local"}, {"base_url": "local", "scores": "raw"}
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}

# %% [markdown]
# ## Index
#
# LlamaIndex puts a node's metadata in front of its text when it embeds it, and the store does so for BM25, too. Prices and stock are no words, so
# they are excluded. The default encoder for hybrid search downloads a model; `RagpairSparseEncoder` needs none. The store does not set the IDF modifier for
# encoders that are passed in, so `sparse_config` does.

# %%
import warnings

from cookbook_data import shop
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient, models

from llamaindex_ragpair import RagpairEmbedding, RagpairSparseEncoder

catalogue = shop.load("en")
METADATA = ["product", "title", "brand", "price", "sales", "in_stock"]
nodes = [
    TextNode(
        text=f"{product.title}\n{product.description}",
        metadata={
            "product": product.id,
            "title": product.title,
            "brand": product.brand,
            "price": product.price,
            "sales": product.sales,
            "in_stock": int(product.in_stock),  # MetadataFilter takes numbers and words, no True
        },
        excluded_embed_metadata_keys=METADATA,
        excluded_llm_metadata_keys=["product"],
    )
    for product in catalogue.products
]

client = QdrantClient(**QDRANT)
if client.collection_exists("shop-li"):
    client.delete_collection("shop-li")
bm25 = RagpairSparseEncoder(language="english")
store = QdrantVectorStore(
    "shop-li",
    client=client,
    enable_hybrid=True,
    sparse_doc_fn=bm25.documents,
    sparse_query_fn=bm25.queries,
    sparse_config=models.SparseVectorParams(modifier=models.Modifier.IDF),
)
embed_model = RagpairEmbedding(**EMBED)
with warnings.catch_warnings():  # the store makes an index in the payload; in memory there are none, and Qdrant says so
    warnings.filterwarnings("ignore", "Payload indexes have no effect")
    IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)
print(f"{client.count('shop-li').count} products")

# %% [markdown]
# ## Recall and filters

# %%
import pandas as pd
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
buyable = MetadataFilters(
    filters=[
        MetadataFilter(key="in_stock", value=1),
        MetadataFilter(key="price", operator=FilterOperator.LTE, value=60.0),
    ]
)


def table(results: list[NodeWithScore], *more: str) -> pd.DataFrame:
    rows = pd.DataFrame(
        [{**item.node.metadata, "score": item.score} for item in results], index=range(1, len(results) + 1)
    )
    return rows[["title", "price", "sales", *more, "score"]]


query = "dog bed"
table(index.as_retriever(similarity_top_k=5, filters=buyable).retrieve(query), "brand")

# %% [markdown]
# ## Rerank and measure
#
# Three retrievers over one collection. Hybrid search in LlamaIndex is not the hybrid search of LangChain: here the client fuses the two
# lists, by scores that are scaled to 0 to 1 in each list and weighed by `alpha`, 1 being vectors alone. The reranker is a node postprocessor.

# %%
import numpy as np
import pytrec_eval
from tqdm import tqdm

from llamaindex_ragpair import RagpairRerank

Rankings = dict[str, list[NodeWithScore]]
retrievers = {
    "words (BM25)": index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=50, sparse_top_k=50),
    "meaning (dense)": index.as_retriever(similarity_top_k=50),
    "hybrid, alpha 0.5": index.as_retriever(
        vector_store_query_mode="hybrid", similarity_top_k=50, sparse_top_k=50, alpha=0.5
    ),
    "hybrid, alpha 0.8": index.as_retriever(
        vector_store_query_mode="hybrid", similarity_top_k=50, sparse_top_k=50, alpha=0.8
    ),
}
reranker = RagpairRerank(**RERANK, top_n=None)
evaluator = pytrec_eval.RelevanceEvaluator(catalogue.qrels, {"ndcg_cut_10", "recall_50"})


def measure(rankings: Rankings) -> pd.DataFrame:
    """NDCG@10 and recall@50 of each query."""
    runs = {
        id: {item.node.metadata["product"]: 1 / rank for rank, item in enumerate(ranking, 1)}
        for id, ranking in rankings.items()
    }
    return pd.DataFrame(evaluator.evaluate(runs)).T


stages: dict[str, Rankings] = {name: {} for name in [*retrievers, "dense + rerank"]}
for id, text in tqdm(catalogue.queries.items(), desc="queries"):
    for name, retriever in retrievers.items():
        stages[name][id] = retriever.retrieve(text)
    stages["dense + rerank"][id] = reranker.postprocess_nodes(stages["meaning (dense)"][id], query_str=text)
reranked = stages["dense + rerank"]
quality = pd.DataFrame({name: measure(rankings).mean() for name, rankings in stages.items()}).T
quality.rename(columns={"ndcg_cut_10": "NDCG@10", "recall_50": "recall@50"}).style.format("{:.3f}")

# %% [markdown]
# TEXT
#
# ## Relevance as a probability, then the blend

# %%
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import QueryBundle

from llamaindex_ragpair import RagpairSignalBlend
from ragpair.calibrate import calibrate

halves = list(catalogue.queries)[::2], list(catalogue.queries)[1::2]
score_kind = reranker.reranker.describe()["score_kind"]
calibrations = {}
for fitted, reported in (halves, halves[::-1]):
    pairs = [
        (item.score, catalogue.qrels[id].get(item.node.metadata["product"], 0) >= 2)
        for id in fitted
        for item in reranked[id]
    ]
    found = calibrate(*zip(*pairs, strict=True), score_kind=score_kind)
    calibrations.update(dict.fromkeys(reported, found))
    print(f"{score_kind}: {found}")

EXAMPLE = next(id for id, text in catalogue.queries.items() if text == query)
engine = RetrieverQueryEngine.from_args(
    index.as_retriever(similarity_top_k=50, filters=buyable),
    llm=MockLLM(),  # your LLM here; this notebook only looks at the products
    node_postprocessors=[
        reranker,
        RagpairSignalBlend(weights={"price": -0.5, "sales": 0.5}, calibration=calibrations[EXAMPLE], top_n=5),
    ],
)
table(engine.retrieve(QueryBundle(query)), "relevance_score")


# %%
def blended(id: str, weight: float, n: int | None = None) -> list[NodeWithScore]:
    """The reranked candidates of a query, blended."""
    blend = RagpairSignalBlend(weights={"price": -weight, "sales": weight}, calibration=calibrations[id], top_n=n)
    return blend.postprocess_nodes(reranked[id], query_str=catalogue.queries[id])


def shown(rankings: Rankings) -> dict[str, float]:
    """NDCG@10, and what the first five and the first product cost and sell."""

    def mean(key: str) -> float:
        return np.mean([np.mean([item.node.metadata[key] for item in ranking[:5]]) for ranking in rankings.values()])

    def first(key: str) -> float:
        return np.exp(np.mean([np.log(ranking[0].node.metadata[key] + 1) for ranking in rankings.values()]))

    return {
        "NDCG@10": measure(rankings)["ndcg_cut_10"].mean(),
        "price of top 5": mean("price"),
        "sales of top 5": mean("sales"),
        "price of first": first("price"),
        "sales of first": first("sales"),
    }


WEIGHTS = [0, 0.1, 0.25, 0.5, 1, 2, 4, 8]
costs = pd.DataFrame(
    {weight: shown({id: blended(id, weight) for id in catalogue.queries}) for weight in WEIGHTS}
).T.rename_axis("weight")
costs.style.format(
    {"NDCG@10": "{:.3f}", "price of top 5": "${:.2f}", "price of first": "${:.2f}"}, precision=0, thousands=","
)

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 3.5))
for name, style in {"NDCG@10": "k-o", "price of top 5": "C0--s", "sales of top 5": "C1:^"}.items():
    axis.plot(range(len(WEIGHTS)), costs[name] / costs[name].iloc[0] * 100, style, label=name)
axis.set_xticks(range(len(WEIGHTS)), WEIGHTS)
axis.set(xlabel="weight of price and of sales", ylabel="% of the list without blend", title="FINDING")
axis.legend()
figure.tight_layout()

# %% [markdown]
# ### Slide it yourself

# %%
from ipywidgets import FloatSlider, interact


@interact(
    id={text: id for id, text in catalogue.queries.items()},
    weight=FloatSlider(value=0.5, min=0, max=4, step=0.1),
)
def show(id: str, weight: float) -> pd.DataFrame:
    return table(blended(id, weight, 5), "relevance_score")


# %%
headline = {
    "BM25 NDCG@10": quality.loc["words (BM25)", "ndcg_cut_10"],
    "dense NDCG@10": quality.loc["meaning (dense)", "ndcg_cut_10"],
    "hybrid NDCG@10": quality.loc["hybrid, alpha 0.5", "ndcg_cut_10"],
    "rerank NDCG@10": quality.loc["dense + rerank", "ndcg_cut_10"],
    "blend 0.5 NDCG@10": costs.loc[0.5, "NDCG@10"],
    "blend 8 NDCG@10": costs.loc[8, "NDCG@10"],
    "blend 0.5 price of first": costs.loc[0.5, "price of first"] / costs.loc[0, "price of first"],
    "blend 0.5 sales of first": costs.loc[0.5, "sales of first"] / costs.loc[0, "sales of first"],
}
headline = {name: round(float(value), 3) for name, value in headline.items()}
headline

# %% [markdown]
# ## What you would change in production
#
# TEXT
