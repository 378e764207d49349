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
# # 客服问答：LangChain 版
#
# HEAD

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local", "model": "multilingual-e5-small"}, None
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}
CHAT = None  # offline: a rule condenses follow-ups, and the best passage is quoted
# CHAT = {"base_url": "http://localhost:8002/v1", "model": "Qwen/Qwen3-8B", "api_key": "none"}

# %%
import re
import uuid
import warnings
from datetime import date
from operator import itemgetter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytrec_eval
from cookbook_data import helpdesk
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langchain_openai import ChatOpenAI
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import models
from tqdm import tqdm

from langchain_ragpair import RagpairEmbeddings, RagpairRerank, RagpairSparseEmbeddings
from ragpair.calibrate import calibrate

pd.set_option("display.max_colwidth", 120)

# %% [markdown]
# ## 数据
#
# DATA

# %%
desk = helpdesk.load("zh")
fit, held_out = [], []
for kind in ("answerable", "near", "off"):
    for number, question in enumerate([one for one in desk.questions if one.kind == kind]):
        (held_out if number % 2 else fit).append(question)
answerable = [question for question in desk.questions if question.right]
pd.DataFrame(
    {
        name: {
            "有答案的问题": sum(one.kind == "answerable" for one in half),
            "与商城有关、但没有答案的问题": sum(one.kind == "near" for one in half),
            "完全无关的问题": sum(one.kind == "off" for one in half),
        }
        for name, half in {"调参用的一半": fit, "报告用的一半": held_out}.items()
    }
)

# %% [markdown]
# ## 指令前缀
#
# PREFIX

# %%
documents = [
    Document(
        passage.text,
        metadata={
            "id": passage.id,
            "title": passage.title,
            "category": passage.category,
            "language": passage.language,
            "updated": passage.updated,
        },
    )
    for passage in desk.passages
]


def measured(
    rankings: dict[str, list[str]], questions: list[helpdesk.Question | helpdesk.FollowUp]
) -> dict[str, float]:
    """Means over the questions that have an answer; by pytrec_eval."""
    qrels = {one.id: dict.fromkeys(one.right, 1) for one in questions if one.right}
    run = {key: {one: 1 / rank for rank, one in enumerate(rankings[key], 1)} for key in qrels}
    names = {"success_1": "hit@1", "success_3": "hit@3", "success_50": "hit@50"}
    names |= {"ndcg_cut_10": "NDCG@10", "recip_rank": "MRR"}
    rows = pytrec_eval.RelevanceEvaluator(qrels, {"success.1,3,50", "ndcg_cut.10", "recip_rank"}).evaluate(run).values()
    return {title: float(np.mean([row[name] for row in rows])) for name, title in names.items()}


if EMBED["base_url"] == "local":
    variants = {
        "query / passage": EMBED,
        "passage / passage": {**EMBED, "query_prompt": "passage: "},
        "query / query": {**EMBED, "document_prompt": "query: "},
    }
else:
    variants = {
        "authors' prompts": EMBED,
        "no prompts": {**EMBED, "query_prompt": "{text}", "document_prompt": "{text}"},
    }
rows, trials = {}, {}
for name, arguments in tqdm(variants.items(), desc="prefixes"):
    side, model = arguments.get("document_prompt"), RagpairEmbeddings(**arguments)
    if side not in trials:  # passages are embedded once for each of their prompts
        trials[side] = QdrantVectorStore.from_documents(
            documents, model, location=":memory:", collection_name="trial"
        ).client
    trial = QdrantVectorStore(trials[side], "trial", model)
    ranked = {one.id: [d.metadata["id"] for d in trial.similarity_search(one.text, k=50)] for one in answerable}
    for half, questions in {"fit": fit, "held out": held_out, "all": answerable}.items():
        rows[name, half] = measured(ranked, questions)
prefix = pd.DataFrame(rows).T["NDCG@10"].unstack()[["fit", "held out", "all"]].loc[list(variants)]
chosen = prefix["fit"].idxmax()
print("调参的一半上最好的是：", chosen)
prefix.round(3)

# %%
ax = prefix[["fit", "held out"]][::-1].plot.barh(figsize=(7, 3), color=["0.75", "0.3"], xlim=(0, 1))
ax.set(xlabel="NDCG@10", ylabel="prompt of questions / of passages", title="Prompts decide on short questions")
plt.show()

# %% [markdown]
# PREFIX2

# %% [markdown]
# ## 入库
#
# INGEST


# %%
def point_id(passage_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://kestova.example/help/{passage_id}"))


COLLECTION = "kestova-help-zh"
embeddings = RagpairEmbeddings(**variants[chosen])
hybrid = QdrantVectorStore.from_documents(
    documents,
    embeddings,
    ids=[point_id(passage.id) for passage in desk.passages],
    sparse_embedding=RagpairSparseEmbeddings(),
    retrieval_mode=RetrievalMode.HYBRID,
    sparse_vector_params={"modifier": models.Modifier.IDF},
    collection_name=COLLECTION,
    force_recreate=True,
    **QDRANT,
)
client = hybrid.client
for field, schema in [("category", "keyword"), ("language", "keyword"), ("updated", "datetime")]:
    with warnings.catch_warnings():  # an index only matters on a server; in memory the client says that it does nothing
        warnings.filterwarnings("ignore", message="Payload indexes have no effect")
        client.create_payload_index(COLLECTION, f"metadata.{field}", field_schema=schema)
store = QdrantVectorStore(client, COLLECTION, embeddings)  # the same points, searched by meaning alone
client.count(COLLECTION).count

# %% [markdown]
# ## 先来一条最简单的链
#
# PLAIN

# %%
REFUSAL = "抱歉，这个问题我不知道，已转人工客服。"


def passages_of(documents: list[Document]) -> str:
    return "\n\n".join(
        f"[{document.metadata['id']}，更新于 {document.metadata['updated']}]\n{document.page_content}"
        for document in documents
    )


def quote(inputs: dict) -> str:
    """Stands in for the chat model: quotes the best passage and names its source."""
    best = inputs["context"][0]
    said = best.page_content.partition("\n")[2]
    return f"{said}[{best.metadata['id']}，更新于 {best.metadata['updated']}]"


if CHAT:
    answer_prompt = ChatPromptTemplate.from_messages(
        [
            (
                "system",
                "你是 Kestova 商城的客服。只根据下面的资料回答，不超过三句话，末尾用方括号注明资料编号。"
                f"资料里没有答案时，只回答：{REFUSAL}",
            ),
            ("human", "资料：\n\n{passages}\n\n问题：{standalone}"),
        ]
    )
    write = (
        RunnablePassthrough.assign(passages=itemgetter("context") | RunnableLambda(passages_of))
        | answer_prompt
        | ChatOpenAI(**CHAT, temperature=0)
        | StrOutputParser()
    )
else:
    write = RunnableLambda(quote)

if RERANK:
    simple = ContextualCompressionRetriever(
        base_compressor=RagpairRerank(**RERANK, top_n=3), base_retriever=store.as_retriever(search_kwargs={"k": 50})
    )
else:
    simple = store.as_retriever(search_kwargs={"k": 3})
plain = {"standalone": RunnablePassthrough(), "context": simple} | RunnablePassthrough.assign(answer=write)

for question in ("退的钱是给我现金还是还到花呗里", "红烧肉怎么做才不腻"):
    print(f"{question}\n-> {plain.invoke(question)['answer']}\n")

# %% [markdown]
# PLAIN2

# %% [markdown]
# ## 召回与重排
#
# RERANK


# %%
def best_first(text: str) -> list[tuple[str, float]]:
    """Ids and scores: of the reranker if there is one, else of recall."""
    found = store.similarity_search_with_score(text, k=50)
    if RERANK is None:
        return [(document.metadata["id"], score) for document, score in found]
    reranked = rerank_all.compress_documents([document for document, _ in found], text)
    return [(document.metadata["id"], document.metadata["relevance_score"]) for document in reranked]


rerank_all = RagpairRerank(**RERANK, top_n=None) if RERANK else None
score_kind = rerank_all.reranker.describe()["score_kind"] if RERANK else "cosine"
recalled, final, scores = {}, {}, {}
for question in tqdm(desk.questions, desc="questions"):
    recalled[question.id] = [document.metadata["id"] for document in store.similarity_search(question.text, k=50)]
    ranked = best_first(question.text)
    final[question.id], scores[question.id] = [one for one, _ in ranked], ranked[0][1]
effect = pd.DataFrame({"recall": measured(recalled, answerable)}).T
if RERANK:
    effect.loc["recall 50, reranked"] = measured(final, answerable)
effect.round(3)

# %% [markdown]
# RERANK2

# %% [markdown]
# ## 阈值：什么时候说“不知道”
#
# THRESHOLD

# %%
line = calibrate(
    [scores[question.id] for question in fit],
    [int(bool(question.right)) for question in fit],
    precision=0.9,
    score_kind=score_kind,
)
print(f"分数类型 {score_kind}，阈值 {line.threshold:.4f}，由 {len(fit)} 个问题标定")


# %%
def outcomes(questions: list[helpdesk.Question], threshold: float) -> dict[str, float]:
    """What becomes of the questions, as shares."""
    kept = {one.id: scores[one.id] >= threshold for one in questions}
    with_answer, without = [one for one in questions if one.right], [one for one in questions if not one.right]
    first = {one.id: final[one.id][0] in one.right for one in with_answer}
    return {
        "answered right": float(np.mean([kept[one.id] and first[one.id] for one in with_answer])),
        "answered wrong": float(np.mean([kept[one.id] and not first[one.id] for one in with_answer])),
        "refused": float(np.mean([not kept[one.id] for one in with_answer])),
        "no answer here: refused": float(np.mean([not kept[one.id] for one in without])),
        "on the right side of the line": float(np.mean([kept[one.id] == bool(one.right) for one in questions])),
    }


threshold_effect = pd.DataFrame(
    {
        "不设阈值，报告的一半": outcomes(held_out, min(scores.values())),
        "设阈值，调参的一半": outcomes(fit, line.threshold),
        "设阈值，报告的一半": outcomes(held_out, line.threshold),
    }
).T
refused = threshold_effect.loc["设阈值，报告的一半", ["no answer here: refused", "refused"]].tolist()
names = ["有答案：答对", "有答案：答错", "有答案：被拒", "没答案：被拒", "判断正确"]
threshold_effect.round(3).set_axis(names, axis=1)

# %%
grid = np.linspace(min(scores.values()), max(scores.values()), 100)
swept = pd.DataFrame([outcomes(held_out, threshold) for threshold in grid], index=grid)
ax = swept[["answered right", "answered wrong", "refused", "no answer here: refused"]].plot(
    figsize=(7, 3.5), color=["0.0", "0.5", "0.75", "0.3"], style=["-", "--", "-.", ":"]
)
ax.axvline(line.threshold, color="0.6", linewidth=6, alpha=0.4)
ax.set(
    xlabel=f"threshold on the best passage's score ({score_kind}); grey: the one chosen",
    ylabel="share of held-out questions",
    title=f"Held-out questions refused: {refused[0]:.0%} without an answer, {refused[1]:.0%} with one",
)
plt.show()

# %% [markdown]
# THRESHOLD2

# %% [markdown]
# ## 答错的问题
#
# WRONG

# %%
title_of = {passage.id: f"{passage.id}：{passage.title}" for passage in desk.passages}
pd.DataFrame(
    [
        {
            "顾客问": one.text,
            "用这条答的": title_of[final[one.id][0]],
            "该用这条": title_of[one.right[0]],
            "正确的排第几": min(
                (final[one.id].index(key) + 1 for key in one.right if key in final[one.id]), default=None
            ),
            "分数": round(scores[one.id], 3),
        }
        for one in held_out
        if one.right and scores[one.id] >= line.threshold and final[one.id][0] not in one.right
    ]
)

# %% [markdown]
# WRONG2

# %%
pd.DataFrame(
    [
        {
            "顾客问": one.text,
            "类型": one.kind,
            "排第一的": title_of[final[one.id][0]],
            "分数": round(scores[one.id], 3),
            "结果": "不该答却答了" if scores[one.id] >= line.threshold else "该答却拒了",
        }
        for one in held_out
        if bool(one.right) != (scores[one.id] >= line.threshold)
    ]
)

# %% [markdown]
# WRONG3

# %% [markdown]
# ## 完整的链：阈值加多轮
#
# CHAIN

# %%
FILLER = re.compile(r"怎么|什么|为什么|可以|我想|吗|啊|呢|的|了|一个|[？?，。]")


def with_topic(inputs: dict) -> str:
    """Stands in for the chat model: puts what the last two questions were about before a short follow-up."""
    said = inputs["question"]
    if len(said) > 12:
        return said
    earlier = [message.content for message in inputs["history"] if message.type == "human"][-2:]
    return f"{FILLER.sub('', ' '.join(earlier))}，{said}"


if CHAT:
    condense_prompt = ChatPromptTemplate.from_messages(
        [
            (
                "system",
                "把顾客最后一句话改写成一个不看上文也能看懂的问题。不要回答。如果本来就完整，原样重复。",
            ),
            ("placeholder", "{history}"),
            ("human", "{question}"),
        ]
    )
    rewrite = condense_prompt | ChatOpenAI(**CHAT, temperature=0) | StrOutputParser()
else:
    rewrite = RunnableLambda(with_topic)
condense = RunnableBranch((itemgetter("history"), rewrite), itemgetter("question"))

if RERANK:
    retriever = ContextualCompressionRetriever(
        base_compressor=RagpairRerank(**RERANK, top_n=3, min_score=line.threshold),
        base_retriever=store.as_retriever(search_kwargs={"k": 50}),
    )
else:
    retriever = store.as_retriever(search_kwargs={"k": 3, "score_threshold": line.threshold})
chain = (
    RunnablePassthrough.assign(standalone=condense)
    | RunnablePassthrough.assign(context=itemgetter("standalone") | retriever)
    | RunnablePassthrough.assign(answer=RunnableBranch((itemgetter("context"), write), lambda _: REFUSAL))
)

# %%
history: list[BaseMessage] = []
for said in ("礼品卡怎么用？", "丢了能补吗", "红烧肉怎么做才不腻，要放多少糖"):
    reply = chain.invoke({"question": said, "history": history})
    print(f"顾客：{said}\n检索：{reply['standalone']}\n回答：{reply['answer']}\n")
    history += [HumanMessage(said), AIMessage(reply["answer"])]

# %%
reply = await chain.ainvoke({"question": "红烧肉怎么做才不腻", "history": []})  # noqa: F704
reply["answer"]

# %% [markdown]
# CHAIN2


# %%
def messages(followup: helpdesk.FollowUp) -> list[BaseMessage]:
    return [message for asked, told in followup.history for message in (HumanMessage(asked), AIMessage(told))]


condensed = condense.batch([{"question": one.text, "history": messages(one)} for one in desk.followups])
asked = {
    "原话": [one.text for one in desk.followups],
    "改写后": condensed,
    "人工写的独立问题": [one.standalone for one in desk.followups],
}
followed = {
    name: {one.id: [key for key, _ in best_first(text)] for one, text in zip(desk.followups, texts, strict=True)}
    for name, texts in tqdm(asked.items(), desc="follow-ups")
}
turns = pd.DataFrame({name: measured(found, desk.followups) for name, found in followed.items()}).T
turns.round(3)

# %%
pd.DataFrame(
    [
        {
            "上一问": one.history[-1][0],
            "追问": one.text,
            "改写后": text,
            "排第一的": title_of[followed["改写后"][one.id][0]],
            "正确": "、".join(one.right),
        }
        for one, text in zip(desk.followups, condensed, strict=True)
        if followed["改写后"][one.id][0] not in one.right
    ]
)

# %% [markdown]
# CHAIN3

# %% [markdown]
# ## 混合检索：要不要开，先量
#
# HYBRID

# %%
words = QdrantVectorStore(
    client, COLLECTION, sparse_embedding=RagpairSparseEmbeddings(), retrieval_mode=RetrievalMode.SPARSE
)
ways = {"words (BM25)": words, "hybrid (RRF)": hybrid}
found = {
    name: {one.id: [d.metadata["id"] for d in way.similarity_search(one.text, k=50)] for one in answerable}
    for name, way in tqdm(ways.items(), desc="hybrid")
}
found["meaning (dense)"] = recalled
compared = pd.DataFrame({name: measured(ranked, answerable) for name, ranked in found.items()}).T
compared.round(3)

# %%
ax = compared["NDCG@10"].plot.barh(figsize=(7, 2.5), color="0.4", xlim=(0, 1))
ax.set(xlabel=f"NDCG@10, mean of {len(answerable)} questions", title="Search by words, by meaning, by both")
plt.show()

# %% [markdown]
# HYBRID2

# %% [markdown]
# ## payload 的用处
#
# PAYLOAD

# %%
recent_returns = models.Filter(
    must=[
        models.FieldCondition(key="metadata.language", match=models.MatchValue(value="zh")),
        models.FieldCondition(key="metadata.category", match=models.MatchAny(any=["returns", "refunds"])),
        models.FieldCondition(key="metadata.updated", range=models.DatetimeRange(gte=date(2025, 1, 1))),
    ]
)
filtered = store.similarity_search_with_score("买回来不喜欢，怎么退", k=3, filter=recent_returns)
pd.DataFrame(
    [
        {**{key: document.metadata[key] for key in ("id", "category", "updated", "title")}, "score": score}
        for document, score in filtered
    ]
)

# %%
old = next(document for document in documents if document.metadata["id"] == "zh-011")
new = Document(
    old.page_content.replace("满59元", "满49元").replace("不满59元", "不满49元"),
    metadata={**old.metadata, "updated": "2026-11-02"},
)
question = {"question": "就买一根数据线还要收我8块邮费，得凑到多少才不用出", "history": []}
counts = [client.count(COLLECTION).count]
print("更新前：", chain.invoke(question)["answer"])
hybrid.add_documents([new], ids=[point_id("zh-011")])
print("更新后：", chain.invoke(question)["answer"])
counts.append(client.count(COLLECTION).count)
print("更新前后的点数：", counts)

# %% [markdown]
# ## 做成工具
#
# TOOL

# %%
tool = create_retriever_tool(
    retriever,
    "kestova_help",
    "检索 Kestova 商城的常见问题和条款。参数是一个完整的中文问题。结果为空表示资料里没有答案。",
    document_prompt=PromptTemplate.from_template("[{id}，更新于 {updated}]\n{page_content}"),
    response_format="content_and_artifact",
)
print(tool.invoke("能用云闪付吗，或者到了再给现金也行"))

# %%
tool.invoke("红烧肉怎么做才不腻")

# %% [markdown]
# TOOL2

# %%
numbers = {
    "ndcg_first_prompts": prefix["all"].iloc[0],
    "ndcg_second_prompts": prefix["all"].iloc[1],
    "ndcg_chosen_prompts_held_out": prefix["held out"][chosen],
    "right_first": effect["hit@1"].iloc[-1],
    "kept_right": threshold_effect["answered right"]["设阈值，报告的一半"],
    "right_side": threshold_effect["on the right side of the line"]["设阈值，报告的一半"],
    "followups_typed": turns["MRR"]["原话"],
    "followups_condensed": turns["MRR"]["改写后"],
    "ndcg_dense": compared["NDCG@10"]["meaning (dense)"],
    "ndcg_hybrid": compared["NDCG@10"]["hybrid (RRF)"],
}
headline = {name: round(float(value), 3) for name, value in numbers.items()}
headline

# %% [markdown]
# ## 生产环境中要改什么
#
# PROD
