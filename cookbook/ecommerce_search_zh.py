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
# # 商品搜索：相关性优先，同时照顾价格和销量
#
# 电商搜索要同时做到两件事：用户要找的商品排在最前；在确实相关的商品里，便宜的、好卖的往前靠。
# 直接按价格排序可不行，搜“瑜伽垫”，排第一的会是软木杯垫。本文用 LangChain 和 Qdrant 搭一条完整的链路：
#
# **召回**（向量，或向量加关键词）→ **过滤** → **相关性** → 与价格、销量**融合**
#
# 每一步都在 60 条标注过的查询上测：找得准不准，融合要付出多少代价，权重最多能调到多大。
# [英文版](ecommerce_search.ipynb) · [LlamaIndex 版](ecommerce_search_llamaindex.ipynb) ·
# [真实商品库](ecommerce_search_chorus.ipynb)
#
# 做法就是下面几行，重排模型要给出概率（比如 Qwen3-Reranker）。其余篇幅讲效果如何，以及什么时候不灵：
#
# ```python
# recall = store.as_retriever(search_kwargs={"k": 50})  # 任何 LangChain 检索器；价格、销量放在 metadata 里
# rerank = RagpairRerank(base_url="http://localhost:8001", top_n=None)
# blend = RagpairSignalBlend(weights={"price": -0.1, "sales": 0.1}, top_n=10)
# pipeline = DocumentCompressorPipeline(transformers=[rerank, blend])
# search = ContextualCompressionRetriever(base_compressor=pipeline, base_retriever=recall)
# search.invoke("跑步用的真无线耳机")
# ```
#
# 测下来的结论：
#
# - e5 的余弦相似度全挤在 0.82 到 0.95 之间，第 10 名的分数还有第 1 名的 96%。直接拿它和价格、销量相乘，NDCG@10
#   从 0.876 掉到 0.24；先校准成概率再乘，同样的权重下是 0.870。
# - 没有重排模型，权重只能很小：0.1 时 60 条查询里有 2 条换了第一名，都是同样合适、更便宜也更好卖的商品；
#   0.25 时换了 8 条，5 条如此，3 条换成了更差的商品。数据的两半选出的权重也不一样，一半是 0.25，一半是 0.1。
# - 相关性如果完全准确（拿人工等级代替），同样的融合让第一名便宜三分之一、销量高 83%，NDCG 不变。瓶颈在相关性。
# - 权重一直加到 64，NDCG 最多损失 6.6%。

# %%
# pip install "ragpair[cookbook]"，并在仓库的 cookbook/ 目录下运行：数据在那里

# %% [markdown]
# 换模型、换 Qdrant 只改下面几行。默认用内置的 multilingual-e5-small，不用起任何服务。内置模型里没有中文重排模型，
# 所以 `RERANK = None`，链路少一步，相关性直接用召回的相似度。填上重排服务的地址，后面的代码一行都不用改。

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local", "model": "multilingual-e5-small"}, None
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}

# %% [markdown]
# ## 商品库
#
# 255 件虚构商品，有价格、近 30 天销量和库存；60 条查询，每条都对照全部商品标注过：3 就是要找的，2 可以替代，1
# 沾边（比如配件），其余 0。标注时不看价格和销量。和真实商城一样，配件便宜，卖得也多。
# [数据怎么来的](data/shop/README.md)

# %%
import pandas as pd
from cookbook_data import shop

catalogue = shop.load("zh")
products = pd.DataFrame(catalogue.products)
products[["title", "brand", "price", "sales", "in_stock"]].head(4)

# %% [markdown]
# ## 建索引
#
# 向量化的文本是标题加描述；其余字段放进 metadata，LangChain 只存储，不向量化。同一个集合里，
# 每件商品既有稠密向量，也有 BM25 稀疏向量，可以单独搜，也可以一起搜。BM25 在本地分词（中文按词典切词，中英文、
# 数字、型号混排都行）；IDF 由 Qdrant 算，要声明 `Modifier.IDF`，否则常见词和稀有词一样重。要过滤的字段在服务端建
# payload 索引。

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
bm25 = RagpairSparseEmbeddings()
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
    collection_name="shop-zh",
    force_recreate=True,
    sparse_vector_params={"modifier": models.Modifier.IDF},
)
client = hybrid.client
with warnings.catch_warnings():  # in memory there are no indexes, and Qdrant says so; a server filters faster with them
    warnings.filterwarnings("ignore", "Payload indexes have no effect")
    for field, kind in {"in_stock": "bool", "price": "float", "sales": "integer", "brand": "keyword"}.items():
        client.create_payload_index("shop-zh", f"metadata.{field}", models.PayloadSchemaType(kind))

hybrid.add_documents(documents, ids=[point_id(product.id) for product in catalogue.products])
dense = QdrantVectorStore(client, "shop-zh", embeddings)
words = QdrantVectorStore(client, "shop-zh", retrieval_mode=RetrievalMode.SPARSE, sparse_embedding=bm25)

# %% [markdown]
# ## 过滤
#
# 必须满足的条件用过滤，不要做成分数：有货、价格区间、指定品牌。Qdrant 边搜边过滤，召回 50 件就是 50
# 件能卖的商品。


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


table(dense.similarity_search("头戴式耳机", k=3, filter=buyable(100, 500, ["齐沃卡", "能波拉"])), "brand")

# %% [markdown]
# ## 混合检索
#
# `RetrievalMode.HYBRID` 背后是 Query API 的一次调用：两路召回，由服务端按名次融合（RRF，k 默认是 2，论文里常用
# 60）。展开写如下；两路要用不同的 `limit`，或者要加权时，就得自己写：

# %%
query = "跑步用的真无线耳机"
in_words = bm25.embed_query(query)
found = client.query_points(
    "shop-zh",
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
print(f"两种写法的前 10 名中有 {len(overlap)} 件相同")

# %% [markdown]
# ## 相关性
#
# 融合需要知道每个候选的相关性。约定放在 `metadata["relevance_score"]`，`metadata["score_kind"]`
# 说明它是哪种分数。有重排模型时，`RagpairRerank` 会写好这两项（`top_n=None` 表示候选全留下）；
# 没有时用召回的余弦相似度，几行代码就够。两种情况得到的都是普通的 Runnable，下游不用区分。

# %%
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.runnables import RunnableLambda

from langchain_ragpair import RagpairRerank


def with_similarity(query: str, filter: models.Filter | None = None) -> list[Document]:
    """Dense recall; the similarity stands in for the relevance."""
    found = dense.similarity_search_with_score(query, k=50, filter=filter)
    return [
        document.model_copy(
            update={"metadata": {**document.metadata, "relevance_score": score, "score_kind": "cosine"}}
        )
        for document, score in found
    ]


if RERANK:
    reranker = RagpairRerank(**RERANK, top_n=None)
    scored = ContextualCompressionRetriever(
        base_compressor=reranker, base_retriever=dense.as_retriever(search_kwargs={"k": 50})
    )
    score_kind = reranker.reranker.describe()["score_kind"]
else:
    scored = RunnableLambda(with_similarity)
    score_kind = "cosine"

# %% [markdown]
# ## 每一步有多准
#
# NDCG@10：好商品全排在前面、且按等级排好时为 1。用 pytrec_eval 计算。

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


stages: dict[str, Rankings] = {"BM25": {}, "向量": {}, "混合": {}, "按相关性": {}}
for id, text in tqdm(catalogue.queries.items(), desc="queries"):
    stages["BM25"][id] = words.similarity_search(text, k=50)
    stages["向量"][id] = dense.similarity_search(text, k=50)
    stages["混合"][id] = hybrid.similarity_search(text, k=50)
    stages["按相关性"][id] = scored.invoke(text)
ranked = stages["按相关性"]
quality = pd.DataFrame({name: measure(rankings).mean() for name, rankings in stages.items()}).T
quality[["NDCG@10", "recall@50"]].style.format("{:.3f}")

# %% [markdown]
# 60 条查询里，一条从全错变成全对，NDCG 只动 0.017；差别在 0.03 以内都不能说明什么。这样看：
#
# - 向量明显好于 BM25。
# - 混合检索在这里没有收益（0.858 对 0.876，差别在误差之内）。商品标题短，词面上对得上的往往是配件。
#   如果用户常搜货号、型号，结论可能相反，先测再开。
# - 没有重排，“按相关性”就是向量召回本身。“跑步用的真无线耳机”和“无线耳机防丢绳”的区别，小的双塔模型分不清，
#   这正是重排模型（Qwen3-Reranker、bge-reranker-v2-m3）要解决的问题。
#
# ## 大家最先想到的办法
#
# 同一条查询、同样的 50 个候选，三种常见做法与按相关性排序对比。`grade` 是人工标注。


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
        "shop-zh",
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


query = "瑜伽垫"
candidates = scored.invoke(query, filter=buyable())
pd.concat(
    {
        "按相关性": graded(query, candidates[:5]),
        "前 20 名按价格排序": graded(query, sorted_by_price(candidates, 20)[:5]),
        "加权求和": graded(query, weighted_sum(candidates, 0.3)[:5]),
        "Qdrant 公式": graded(query, boosted(query, 0.25, buyable())[:5]),
    }
)

# %% [markdown]
# - **按价格排序**：相关性完全丢掉，杯垫、锅垫都上来了。
# - **加权求和**：这一条看着没问题，但价格和销量可以“买”名次，权重一大就失控，见后面的曲线。
# - **Qdrant 公式**（score boosting）：相乘的思路是对的，可乘的是召回的余弦，彼此差得太少，
#   便宜一点就能把差距补回来。而且它只看得到召回分数，后面再接重排，顺序又会被打乱。它适合用来扩大召回，
#   让畅销品进得了候选。
#
# ## 把分数变成概率
#
# 相乘有意义的前提是：分数减半，相关的可能性也减半。概率满足这一点，余弦不满足，e5 尤其明显。`calibrate`
# 用标注过的查询和商品，把任意分数校准成概率。
#
# 查询分成两半，在一半上校准，只用在另一半上，后面也都这样。

# %%
from ragpair.calibrate import Calibration, calibrate

halves = list(catalogue.queries)[::2], list(catalogue.queries)[1::2]
calibrations = {}


def judged(ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The scores of all candidates of these queries, and which of them are relevant."""
    scores = np.concatenate([column(ranked[id], "relevance_score") for id in ids])
    relevant = [catalogue.qrels[id].get(document.metadata["id"], 0) >= 2 for id in ids for document in ranked[id]]
    return scores, np.array(relevant)


for fitted, reported in (halves, halves[::-1]):
    calibration = calibrate(*judged(fitted), score_kind=score_kind)
    calibrations.update(dict.fromkeys(reported, calibration))
    print(f"{score_kind}: {calibration}")

ratios = {"分数": [], "概率": []}
for id, results in ranked.items():
    scores = column(results, "relevance_score")
    ratios["分数"].append(scores[9] / scores[0])
    ratios["概率"].append(np.divide(*calibrations[id].probability(scores[[9, 0]])))
pd.DataFrame({"第 10 名与第 1 名之比": {name: np.mean(found) for name, found in ratios.items()}}).style.format("{:.0%}")

# %% [markdown]
# 第 10 名多半已经不相关了。看余弦，它是第 1 名的 96%，价格、销量稍微好一点就能翻上去；看概率，只有 11%。
#
# ## 融合
#
# `RagpairSignalBlend` 是 LangChain 的 document compressor，接在最后。（[README](../README.zh-CN.md) 里用
# `DocumentCompressorPipeline` 把重排和融合串在一起，是同一件事，只是多了重排模型。）
#
# $$\text{blended} = \text{relevance} \cdot \frac{1 + \sum |w| \cdot s}{1 + \sum |w|}$$
#
# `s` 表示这个价格（或销量）和相关候选里的典型值相比有多好：正好是典型价格，0.5；便宜一半，0.67；贵一倍，0.33；
# 始终在 0 和 1 之间。权重为负，越小越好；为正，越大越好。价格和销量只能按比例调整相关性，代替不了它，而且有上界：
# 两个权重都是 0.5 时，谁也越不过相关概率是它 1 + 0.5 + 0.5 = 2 倍以上的商品。

# %%
from langchain_ragpair import RagpairSignalBlend


def shop_search(calibration: Calibration) -> ContextualCompressionRetriever:
    """The whole chain. In production it is made once."""
    blend = RagpairSignalBlend(weights={"price": -0.5, "sales": 0.5}, calibration=calibration, top_n=5)
    return ContextualCompressionRetriever(base_compressor=blend, base_retriever=scored)


def before_and_after(query: str) -> pd.DataFrame:
    """The first five without and with the blend."""
    id = next(id for id, text in catalogue.queries.items() if text == query)
    lists = {
        "融合前": scored.invoke(query, filter=buyable())[:5],
        "融合后": shop_search(calibrations[id]).invoke(query, filter=buyable()),
    }
    return pd.concat(
        {
            name: graded(query, results).assign(
                relevance=calibrations[id].probability(column(results, "relevance_score"))
            )
            for name, results in lists.items()
        }
    )


FORMAT = {"price": "¥{:.2f}", "sales": "{:,}", "relevance": "{:.2f}"}
before_and_after("瑜伽垫").style.format(FORMAT)

# %% [markdown]
# 最便宜、销量最高的那张瑜伽垫升到第一。清洁喷雾更便宜，但不是瑜伽垫，留在后面。（0.5 的权重是为了让效果看得清楚，
# 怎么选权重后面再说。）
#
# 再看融合做不到的事：

# %%
before_and_after("跑步用的真无线耳机").style.format(FORMAT)

# %% [markdown]
# 小模型把防丢绳当成了最相关的商品，融合也只能照单全收；它便宜、卖得多，位置就更稳了。相关性错了，融合救不回来，
# 只会让更多人看到这个错误。这要靠真正的重排模型。
#
# 60 条查询里，第一名的变化如下：


# %%
def blended(id: str, cheap: float, sells: float, n: int | None = None) -> list[Document]:
    """The scored candidates of a query, blended."""
    blend = RagpairSignalBlend(weights={"price": -cheap, "sales": sells}, calibration=calibrations[id], top_n=n)
    return blend.compress_documents(ranked[id], catalogue.queries[id])


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
        "第一名换了": sum(rankings[id][0].metadata["id"] != ranked[id][0].metadata["id"] for id in rankings),
        "等级更高": sum(first_grade(rankings[id], id) > first_grade(ranked[id], id) for id in rankings),
        "等级更低": sum(first_grade(rankings[id], id) < first_grade(ranked[id], id) for id in rankings),
        "等级不变，更便宜也更好卖": sum(better_buy(rankings[id], ranked[id], id) for id in rankings),
    }
    for weight, rankings in by_weight.items()
}
firsts = pd.DataFrame(firsts).T
firsts.rename(index="{:g}".format).rename_axis("两个权重")

# %% [markdown]
# 权重 0.5 时有 11 条查询换了第一名：7 条换成了同样合适、更便宜也更好卖的，比如办公椅从 899 元换成 259 元；
# 4 条换成了等级更低的商品。0.1 时换的 2 条都是前一种。
#
# ### 自己调一调
#
# 在 Jupyter 里，下面是两个滑块；没有内核的页面上看下一张表，列出了几个位置。相关性只算一次，融合不到 1
# 毫秒，拖动时列表立刻跟着变。

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
            f"{document.metadata['title'][:18]} ¥{document.metadata['price']:g}，{document.metadata['sales']:,} 件"
            for document in blended("q51", cheap, sells, 4)
        ]
        for cheap, sells in ((0, 0), (1, 0), (0, 1), (1, 1))
    },
    index=range(1, 5),
).T.rename_axis(catalogue.queries["q51"])

# %% [markdown]
# ## 权重的代价
#
# 全部 60 条查询，两个权重取同样大小。前五名的价格和销量是算术平均；第一名的是各查询的几何平均，
# 免得被少数高价商品左右。


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
    "price, top 5": "¥{:.0f}",
    "sales, top 5": "{:,.0f}",
    "price, first": "¥{:.0f}",
    "sales, first": "{:,.0f}",
}
costs = pd.DataFrame({weight: shown(rankings) for weight, rankings in by_weight.items()}).T
costs.rename(index="{:g}".format).rename_axis("两个权重").style.format(NUMBERS)

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
# 再和前面几种做法放在一起，各自的权重（或 n）从零开始加大：

# %%
UNCALIBRATED = [0.1, 0.25, 0.5] if score_kind != "probability" else []
uncalibrated = {
    weight: {
        id: RagpairSignalBlend(weights={"price": -weight, "sales": weight}, top_n=None).compress_documents(
            [
                document.model_copy(
                    update={
                        "metadata": {
                            **document.metadata,
                            "relevance_score": float(np.clip(document.metadata["relevance_score"], 0, 1)),
                            "score_kind": "probability",  # taken for one
                        }
                    }
                )
                for document in ranking
            ],
            "",
        )
        for id, ranking in ranked.items()
    }
    for weight in UNCALIBRATED
}
steps = {
    "blend": by_weight,
    **({"blend of scores as they are": {0: ranked} | uncalibrated} if uncalibrated else {}),
    "weighted sum": {
        weight: {id: weighted_sum(ranking, weight) for id, ranking in ranked.items()}
        for weight in (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
    },
    "Qdrant formula": {
        weight: {id: boosted(text, weight) for id, text in catalogue.queries.items()}
        for weight in tqdm((0, 0.02, 0.05, 0.1, 0.25, 1, 64), desc="formula")
    },
    "first n sorted by price": {
        n: {id: sorted_by_price(ranking, n) for id, ranking in ranked.items()} for n in (1, 2, 3, 5, 10)
    },
}
curves = {
    name: pd.DataFrame({step: shown(rankings) for step, rankings in found.items()}).T for name, found in steps.items()
}
MARKED = {  # the weight (or n) is written beside these points
    "blend": [0.5, 2, 64],
    "blend of scores as they are": [0.1, 0.5],
    "weighted sum": [0.1, 0.3],
    "Qdrant formula": [0.05, 0.25, 64],
    "first n sorted by price": [3, 10],
}
STYLES = dict(zip(MARKED, ["k-o", "C4-+", "C0--s", "C1:^", "C3-.x"], strict=True))
figure, axis = plt.subplots(figsize=(7, 3.5))
for name, curve in curves.items():
    axis.plot(curve["price, first"], curve["NDCG@10"], STYLES[name], label=name)
    for step in MARKED[name]:
        point = curve.loc[step, ["price, first", "NDCG@10"]]
        axis.annotate(f"{step:g}", point, xytext=(4, 4), textcoords="offset points", fontsize=8)
axis.invert_xaxis()
axis.set(xlabel="price of the first product, CNY (geometric mean), cheaper to the right", ylabel="NDCG@10")
ends = {name: curve["NDCG@10"].iloc[-1] for name, curve in curves.items() if name in ("blend", "Qdrant formula")}
axis.set_title(f"At weights of 64, NDCG@10 is {ends['blend']:.2f} blended, {ends['Qdrant formula']:.2f} by formula")
axis.legend(loc="lower left")
figure.tight_layout()

# %% [markdown]
# 从左往右看（点旁的数字是权重或 n）：
#
# - 权重很小时，几条线几乎重合，怎么混都差不多。（前两三名按价格排序显得不错，是因为它只看价格，
#   而横轴也只有价格。）
# - 权重加大，加权求和一路往下掉，到 0.5 就完全不看相关性了。融合停在 0.818：相关性始终是一个因子，权重再大，
#   顺序也只是趋近于“相关性 × `s` 的平均值”。
# - 不校准、直接用余弦去乘（紫线；`RERANK` 直接给概率时没有这条线），权重 0.1 就已经毁了排序。Qdrant 公式乘的也是余弦，
#   最后停在 0.13。在英文版的 MiniLM 上，余弦分得开一些，同样的公式、同样的权重看着还能用。换个模型就出事，
#   这才是最麻烦的。
#
# 代价有多少该由相关性不准来负责？把人工等级直接当成相关概率，相当于重排从不出错。下面四个概率是随手设的，
# 结果是上限，不是实测成绩：

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
        for document in ranked[id]
    ]


ceiling = {}
for weight in (0, 0.1, 0.25, 0.5, 1):
    blend = RagpairSignalBlend(weights={"price": -weight, "sales": weight}, top_n=None)
    ceiling[weight] = shown({id: blend.compress_documents(with_grades(id), "") for id in catalogue.queries})
ceiling = pd.DataFrame(ceiling).T
ceiling.rename(index="{:g}".format).rename_axis("两个权重").style.format(NUMBERS)

# %% [markdown]
# 相关性完全准确时，最小的权重就已经把能做的都做了：第一名便宜三分之一，销量高 83%，NDCG 不变。
# 它只在同样合适的商品之间挑。权重再加大，结果几乎不变（1 时 NDCG 从 0.983 变成 0.982）。这张表和前面那张之间的差距，
# 就是一个好的重排模型值多少。
#
# ## 选权重
#
# 在一半查询上，从小到大试，取 NDCG 损失超过 1% 之前的最大权重；它在另一半上的表现，才是可信的数字。

# %%
from itertools import takewhile


def largest_within_budget(mean: pd.Series) -> float:
    """The last weight before NDCG first falls below 99 % of that without blend."""
    return list(takewhile(lambda weight: mean[weight] >= 0.99 * mean[0], WEIGHTS))[-1]


ndcg = pd.DataFrame({weight: measure(rankings)["NDCG@10"] for weight, rankings in by_weight.items()})
chosen = {}
for name, fitted, reported in (("A 上选，B 上测", *halves), ("B 上选，A 上测", *halves[::-1])):
    weight = largest_within_budget(ndcg.loc[fitted].mean())
    for label, step in ("不融合", 0), (f"权重 {weight:g}", weight):
        chosen[name, label] = shown({id: by_weight[step][id] for id in reported})
chosen = pd.DataFrame(chosen).T
chosen.style.format(NUMBERS)

# %%
half = by_weight[0.5]
pd.concat(
    {
        catalogue.queries[id]: pd.concat(
            [graded(catalogue.queries[id], ranked[id][:1]), graded(catalogue.queries[id], half[id][:1])]
        ).set_axis(["融合前", "融合后"])
        for id in catalogue.queries
        if first_grade(half[id], id) != first_grade(ranked[id], id)
    }
).style.format({"price": "¥{:.2f}", "sales": "{:,}"})

# %% [markdown]
# 一半选出 0.25，在另一半上 NDCG 损失了 1.5%，超过了预算的 1%，第一名便宜 6%，销量高 7%；另一半选出 0.1，
# 几乎没有损失，第一名便宜 8%，销量高 9%。两半选出的权重差 2.5 倍，而且 1% 的 NDCG 只有 0.009，远小于前面说的 0.03：
# 这个选择本身就在误差之内。每一半只有 30 条查询，这里要学的是做法，不是这两个数字。
#
# 便宜是有代价的。上表是权重 0.5 时第一名变差的 4 条查询：平底锅换成了锅盖，奶瓶换成了奶嘴，
# 送妈妈的礼物换成了婴儿安抚仪。另外 7 条换得值，但用户记住的是锅盖。先上重排模型，再从 0.1 开始，用线上实验往上调。
#
# ## 上界
#
# 相关概率低的商品越过高的，最多能越过几倍的差距？


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
        "理论上界": {weight: 1 + 2 * weight for weight in WEIGHTS},
        "实际最大": {weight: worst(rankings) for weight, rankings in by_weight.items()},
    }
)
assert (bounds["实际最大"] <= bounds["理论上界"] + 1e-9).all()
bounds.rename(index="{:g}".format).rename_axis("两个权重").style.format("{:.2f}")

# %% [markdown]
# ## 截掉长尾
#
# `calibrate` 还会给出一条分数线，低于它的不展示。默认取 F1 最高的那条；`recall=0.95` 则要求在拟合用的查询上保住
# 95% 的相关候选。在另一半查询上的效果：

# %%
tail = {}
for name, wanted in {"F1 最高": None, "recall=0.95": 0.95}.items():
    kept, relevant = [], []
    for fitted, reported in (halves, halves[::-1]):
        scores, labels = judged(reported)
        kept.append(scores >= calibrate(*judged(fitted), recall=wanted, score_kind=score_kind).threshold)
        relevant.append(labels)
    kept, relevant = np.concatenate(kept), np.concatenate(relevant)
    tail[name] = {
        "相关商品保留": kept[relevant].mean(),
        "其余商品保留": kept[~relevant].mean(),
        "50 件中剩下": kept.sum() / len(ranked),
    }
tail = pd.DataFrame(tail).T
tail.style.format({"相关商品保留": "{:.0%}", "其余商品保留": "{:.0%}", "50 件中剩下": "{:.1f}"})

# %% [markdown]
# F1 最高的那条线太严，相关商品只留下 56%。`recall=0.95` 的线在另一半上也留住了 95%，其余商品去掉三分之二。
#
# ## 耗时
#
# 单条查询，在生成本页的机器上。

# %%
import time
from collections.abc import Callable

sample = list(catalogue.queries)[:20]


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
        "中位数，毫秒": {
            "查询向量化": milliseconds(lambda id: embeddings.embed_query(catalogue.queries[id])),
            "向量召回 50（含上一步）": milliseconds(lambda id: dense.similarity_search(catalogue.queries[id], k=50)),
            "混合召回 50（含上一步）": milliseconds(lambda id: hybrid.similarity_search(catalogue.queries[id], k=50)),
            "召回加相关性": milliseconds(lambda id: scored.invoke(catalogue.queries[id])),
            "融合 50": milliseconds(lambda id: blended(id, 0.5, 0.5)),
        }
    }
).style.format("{:.1f}")

# %%
headline = {
    "BM25 NDCG@10": quality.loc["BM25", "NDCG@10"],
    "dense NDCG@10": quality.loc["向量", "NDCG@10"],
    "hybrid NDCG@10": quality.loc["混合", "NDCG@10"],
    "blend 0.5 NDCG@10": costs.loc[0.5, "NDCG@10"],
    "blend 64 NDCG@10": costs.loc[64, "NDCG@10"],
    "Qdrant formula 0.1 NDCG@10": curves["Qdrant formula"].loc[0.1, "NDCG@10"],
    "blend 0.5 price of first, beside none": costs.loc[0.5, "price, first"] / costs.loc[0, "price, first"],
    "blend 0.5 sales of first, beside none": costs.loc[0.5, "sales, first"] / costs.loc[0, "sales, first"],
}
if uncalibrated:
    headline["uncalibrated blend 0.25 NDCG@10"] = curves["blend of scores as they are"].loc[0.25, "NDCG@10"]
headline = {name: round(float(value), 3) for name, value in headline.items()}
headline

# %% [markdown]
# ## 生产环境中要改什么
#
# - **模型。** 召回用 `vllm serve Qwen/Qwen3-Embedding-0.6B --runner pooling`，重排用 Qwen3-Reranker-0.6B，
#   启动命令见 [README](../README.zh-CN.md)。16 位权重各占 1.2 GB。代码只改最上面的参数。重排模型给的是概率，
#   `calibration` 可以不填；但攒够 50 条标注过的查询，还是校准一次更准。换了模型一定要重新校准，
#   分数种类对不上时会直接报错。
# - **Qdrant。** 用服务端，先建 payload 索引再写数据，这样向量索引会照顾到过滤条件。一百万件商品、1,024 维，向量占
#   4 GB，标量量化后 1 GB。点的 id 要固定，像上面那样由商品 id 生成
#   （Qdrant 只收 UUID 和非负整数），不要每次 `force_recreate`。价格、销量、库存随时在变，
#   用 `client.set_payload("shop-zh", {"price": 19.9}, key="metadata", points=[point_id("p001")])`
#   更新，不必重新向量化。
# - **信号。** 销量取近 30 天；上架不满 30 天的商品填 `None`，按典型值算，新品才有机会露出。排在前面的自然卖得多，
#   所以下单数除以曝光数比销量更可靠，最好再留一点随机流量。价格用到手价，规格不同的换算成单价。毛利也可以这样用，
#   凡是“0 就代表没有”的非负数都行；1 到 5 分的评分要先减掉底分，比如 `max(rating - 3, 0)`。
# - **权重。** 标注数据给出上限，最终大小由线上 A/B 实验的订单决定。有了重排模型，从 0.1 开始。
# - **截掉长尾。** `RagpairRerank(..., min_score=calibrate(..., recall=0.95).threshold)`，效果见上文。
# - **重排挂了怎么办。** `plain = dense.as_retriever(search_kwargs={"k": 5})`，然后
#   `shop_search(calibration).with_fallbacks([plain], exceptions_to_handle=(EndpointError,))`
#   （`from ragpair import EndpointError`）：不重排、不融合，但页面还在。只接住服务端的错误：校准用错了、
#   价格写成“¥19.9”，都要看得见。`RagpairRerank` 要设 `timeout=2, max_retries=0`；默认等 120 秒、重试 3 次，
#   降级来得太晚。
# - **监控。** 融合改变第一名的比例、第一名的相关概率、无点击的搜索、重排的 P95 耗时。日志里同时记下
#   `relevance_score` 和 `blended_score`，出了问题看得出是哪一步排上去的。
# - **没有涉及：** 纠错和同义词、从查询里识别品牌和价格、同款去重、个性化、广告位。点击数据到了百万量级，可以训练
#   LambdaMART 这类排序模型，把这些信号都放进去；在那之前，这里的两个权重就是基线，而且谁都能讲清楚。
