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
# 顾客提问，链路从常见问题和条款里找出相关段落，用最好的一条作答并注明出处；资料里没有答案，就直说不知道。
#
# - Qdrant 召回 50 条；有重排模型时由它排序，超过阈值的前三条用来作答。
# - 阈值在一半标注问题上校准，在另一半上验证。
# - 追问（“丢了能补吗”）先改写成独立的问题，再去检索。
#
# 默认全部在本进程内运行：内置小模型，Qdrant 放在内存里，聊天模型由规则代替。换成自己的服务，只改设置 `EMBED` 的单元格。
# 内置模型只用来把链路跑通，效果到哪一步，下面如实给出。文中的数字都是内置模型的；换了模型，以表和图为准。
#
# 内置的重排模型只懂英文，所以这里 `RERANK = None`，阈值直接定在召回的余弦相似度上。接上重排服务后，
# 同样的代码会走重排。

# %%
# pip install "ragpair[cookbook]"，并在仓库的 cookbook/ 目录下运行：数据在那里

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local", "model": "multilingual-e5-small"}, None
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}
CHAT = None  # offline: a rule condenses follow-ups, and the best passage is quoted
# CHAT = {
#     "base_url": "http://localhost:8002/v1",
#     "model": "Qwen/Qwen3-8B",
#     "api_key": "none",
#     "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},  # else every rewritten question waits for it
# }

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
# Kestova 是一家虚构的数码家居商城。常见问题和大部分顾客提问随 ragpair 发布；条款、更新日期、追问，
# 以及另外 20 个资料里找不到答案的问题，放在 `cookbook/data/helpdesk`。所有文本和标注都写在跑模型之前。
# 顾客怎么说话，问题就怎么写：口语、抱怨、错字都有，很少用条款里的词。有两段条款也能回答其中三个问题，
# 标注里同样算对。规模不大：80 条常见问题、14 段条款、20 个追问，提问的数量见下表。
#
# 每一类问题隔一个取一个，分成两半：一半用来选前缀、定阈值，另一半只用来验证。验证的一半里，
# 一个有答案的问题占 2.4 个百分点，一个没答案的占 6 个百分点，差两三个点说明不了什么。

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
        for name, half in {"调参用的一半": fit, "验证用的一半": held_out}.items()
    }
)

# %% [markdown]
# ## 指令前缀
#
# E5 训练时给问题加 `query: `，给段落加 `passage: `，`RagpairEmbeddings` 会按模型卡自动加好；
# `query_prompt` 和 `document_prompt` 可以改写。内置的 E5 不接受没有前缀的文本，
# 所以这里演示的错误是“两边都当段落”，也就是客户端分不清问题和段落。第三种写法两边都用 `query: `：
# 模型卡对两边地位相同的任务就是这么规定的，而常见问题的每一条本身就以问题开头。`EMBED` 指向自己的服务时，
# 这个单元格比较的是你的模型带与不带前缀。
#
# 前缀在调参的一半上选，分数看另一半。接自己的服务时只作对比，后面一律用模型作者规定的提示词：
# 样本这么小，差一两个问题就可能让“不带提示词”碰巧胜出，而那样整条链路就都不带提示词了。

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
best = prefix["fit"].idxmax()
chosen = best if EMBED["base_url"] == "local" else next(iter(variants))  # a server keeps its authors' prompts
print(f"调参的一半上最好的是 {best}，下面使用 {chosen}")
prefix.round(3)

# %%
ax = prefix[["fit", "held out"]][::-1].plot.barh(figsize=(7, 3), color=["0.75", "0.3"], xlim=(0, 1))
ax.set(
    xlabel="NDCG@10",
    ylabel="prompt of questions / of passages",
    title=f"Prompts move NDCG@10 on the held-out half by {prefix['held out'].max() - prefix['held out'].min():.2f}",
)
plt.show()

# %% [markdown]
# 两边都当段落，验证的一半上 NDCG@10 从 0.625 掉到 0.552，全部 82 个问题上从 0.628 掉到 0.598。过程中没有任何报错，
# 向量的维度和长度也都正常，只能靠这样量出来。（调参的一半上反而略高，0.644 对 0.631，可见样本小的时候一半数据看不准。）
#
# 两边都用 `query: ` 在两半上都最好，验证的一半是 0.689，全部问题上 0.715（写作时先在全部问题上看过一遍）。下面就用它。
# 这不等于“E5 都该这么用”：换成长文档，模型卡的 `query: / passage: ` 才是对的。前缀要在自己的问题上量，
# 改了前缀必须重新入库。

# %% [markdown]
# ## 入库
#
# 一条资料是标题加正文，类别、语言、更新日期放在 payload 里，不参与向量化。点的 id 由资料编号经 uuid5 得到，
# 同一条资料再次入库会覆盖旧的。稠密向量和 BM25 向量一次写好，用哪种检索，查询时再定。
# `force_recreate` 会先删掉同名集合，只适合演示。payload 索引在写入数据之前建，Qdrant 建图时才用得上。


# %%
def point_id(passage_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://kestova.example/help/{passage_id}"))


COLLECTION = "kestova-help-zh"
embeddings = RagpairEmbeddings(**variants[chosen])
hybrid = QdrantVectorStore.construct_instance(  # an empty collection
    embeddings,
    client_options=QDRANT,
    sparse_embedding=RagpairSparseEmbeddings(),
    retrieval_mode=RetrievalMode.HYBRID,
    sparse_vector_params={"modifier": models.Modifier.IDF},
    collection_name=COLLECTION,
    force_recreate=True,
)
client = hybrid.client
for field, schema in [("category", "keyword"), ("language", "keyword"), ("updated", "datetime")]:
    with warnings.catch_warnings():  # an index only matters on a server; in memory the client says that it does nothing
        warnings.filterwarnings("ignore", message="Payload indexes have no effect")
        client.create_payload_index(COLLECTION, f"metadata.{field}", field_schema=schema)
hybrid.add_documents(documents, ids=[point_id(passage.id) for passage in desk.passages])
store = QdrantVectorStore(client, COLLECTION, embeddings)  # the same points, searched by meaning alone
client.count(COLLECTION).count

# %% [markdown]
# ## 先来一条最简单的链路
#
# 召回、（重排、）取前三、作答。重排在 LangChain 里的位置是 `ContextualCompressionRetriever`，其余是 LCEL。
# 没有聊天模型时，原样引用最好的一条。

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
# 第一个答对了。第二个正是问题所在：总有一条排在第一，没有阈值的链路就拿它来回答。

# %% [markdown]
# ## 召回与重排
#
# 全部问题跑一遍，后面各节都用这里的结果。


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
recalled, final, scores, first_3 = {}, {}, {}, {}
for question in tqdm(desk.questions, desc="questions"):
    recalled[question.id] = [document.metadata["id"] for document in store.similarity_search(question.text, k=50)]
    ranked = best_first(question.text)
    final[question.id], scores[question.id] = [one for one, _ in ranked], ranked[0][1]
    first_3[question.id] = ranked[:3]
effect = pd.DataFrame({"recall": measured(recalled, answerable)}).T
if RERANK:
    effect.loc["recall 50, reranked"] = measured(final, answerable)
effect.round(3)

# %% [markdown]
# 只靠召回，59% 的问题第一条就对，而正确的那条总在前 50 里（资料一共只有 94 条）。两者之间的 41 个点，
# 就是重排模型能争取的空间。
#
# 真正的重排模型（Qwen3-Reranker、bge-reranker-v2-m3）把问题和段落放在一起读，分得清“退定金”和“退货”、
# “少件”和“发错货”这类只差一个条件的近邻；向量各算各的，往往做不到。这里没有内置的中文重排模型，
# 所以它的收益没有数字，请接上自己的服务，用这张表量。

# %% [markdown]
# ## 阈值：什么时候说“不知道”
#
# 由最好一条的分数决定答不答。`calibrate` 的输入是：每个问题最好一条的分数，以及资料里到底有没有答案。
# `precision=0.9` 的意思是，放行的问题里十个有九个在资料里确实有答案。

# %%
line = calibrate(
    [scores[question.id] for question in fit],
    [int(bool(question.right)) for question in fit],
    precision=0.9,
    score_kind=score_kind,
)
print(f"分数类型 {score_kind}，阈值 {line.threshold:.4f}，由 {len(fit)} 个问题校准")


# %%
def outcomes(questions: list[helpdesk.Question], threshold: float) -> dict[str, float]:
    """What becomes of the questions, as shares."""
    kept = {one.id: scores[one.id] >= threshold for one in questions}
    read = {one.id: {key for key, score in first_3[one.id] if score >= threshold} for one in questions}
    with_answer, without = [one for one in questions if one.right], [one for one in questions if not one.right]
    first = {one.id: final[one.id][0] in one.right for one in with_answer}
    return {
        "answered right": float(np.mean([kept[one.id] and first[one.id] for one in with_answer])),
        "answered wrong": float(np.mean([kept[one.id] and not first[one.id] for one in with_answer])),
        "has an answer: refused": float(np.mean([not kept[one.id] for one in with_answer])),
        "no answer: refused": float(np.mean([not kept[one.id] for one in without])),
        "right one handed on": float(np.mean([bool(read[one.id] & set(one.right)) for one in with_answer])),
        "let through: has an answer": sum(kept[one.id] for one in with_answer) / max(sum(kept.values()), 1),
        "on the right side of the line": float(np.mean([kept[one.id] == bool(one.right) for one in questions])),
    }


threshold_effect = pd.DataFrame(
    {
        "不设阈值，验证的一半": outcomes(held_out, min(score for found in first_3.values() for _, score in found)),
        "设阈值，调参的一半": outcomes(fit, line.threshold),
        "设阈值，验证的一半": outcomes(held_out, line.threshold),
        "设阈值，全部": outcomes(desk.questions, line.threshold),
    }
).T
refused = threshold_effect.loc["设阈值，验证的一半", ["no answer: refused", "has an answer: refused"]].tolist()
names = [
    "有答案：答对",
    "有答案：答错",
    "有答案：被拒",
    "没答案：被拒",
    "有答案：前三里有对的且过线",
    "放行的里面有答案",
    "判断正确",
]
threshold_effect.round(3).set_axis(names, axis=1)

# %%
grid = np.linspace(min(scores.values()), max(scores.values()), 100)
swept = pd.DataFrame([outcomes(held_out, threshold) for threshold in grid], index=grid)
having = sum(bool(one.right) for one in held_out)
shares = {name: f"{name} (of {having})" for name in ("answered right", "answered wrong", "has an answer: refused")}
shares["no answer: refused"] = f"no answer: refused (of {len(held_out) - having})"
ax = (
    swept[list(shares)]
    .rename(columns=shares)
    .plot(figsize=(7, 3.5), color=["0.0", "0.4", "0.5", "0.2"], style=["-", "--", "-.", ":"])
)
ax.axvline(line.threshold, color="0.6", linewidth=6, alpha=0.4)
ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
ax.set(
    xlabel=f"threshold on the best passage's score ({score_kind}); grey: the one chosen",
    ylabel="share of held-out questions",
    title=f"Held-out questions refused: {refused[0]:.0%} without an answer, {refused[1]:.0%} with one",
)
plt.show()

# %% [markdown]
# 图例与表头对应：answered right 是“有答案：答对”，answered wrong 是“有答案：答错”，has an answer: refused 是
# “有答案：被拒”，no answer: refused 是“没答案：被拒”。
#
# 验证的一半上，阈值 0.882 拦下 16 个没答案的问题中的 13 个；不设阈值，16 个都会被硬答。
# 代价是 41 个有答案的问题里有 3 个被拒，而这 3 个本来也没排对，所以答对的一个没少。放行的 41 个问题里 38 个有答案，
# 即 0.93，要求的是 0.9。57 个问题里 51 个判断正确（0.895），和调参的一半一样多。
#
# E5 的余弦挤在很窄的一段里，阈值再高 0.01，有答案的问题就会多拒掉一成多；换模型、换前缀都得重新校准。
# 重排模型给出的是 0 到 1 的概率，通常拉得更开，是不是更稳，接上之后用同一张图看。
#
# 要说明的是，校准的目标是看过两半的结果之后才定的，所以这些数字略偏乐观。试过三种目标，每种还试了别的 `precision`。
# 以“第一条就对”或“前三条里有对的”为目标、按最佳 F1 校准，阈值都是 0.891，验证的一半上 16 个没答案的全部拦下，
# 但有答案的会拒掉 20%。选哪种，取决于答错一次的代价。
#
# 阈值分不清排第一的那条是对是错：放行的 41 个问题里答错 19 个，16 个用错了资料，3 个根本没有答案。这要靠重排，
# 或者让聊天模型读完过线的前三条再答：38 个有答案且放行的问题里，28 个（74%）的正确段落在其中。

# %% [markdown]
# ## 答错的问题
#
# 验证的一半里，放行但用错资料的问题：

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
# 原因大致有三类（只是我们的判断）：
#
# - **只差一个条件的近邻**（4 个）：少件和发错货、销户退款和退款未到账、自动关闭和自己取消、拆封不退和质量问题。
# - **被具体的词带偏**（8 个）：“加湿器”“小冰箱”“净水器”“奶锅”把问题拉向报修、正品这些谈商品的条目，
#   “屏幕一直闪的手机”排到了改绑手机号，“三件”“那套碗”“音箱”则撞上了套装条款（条款里正好举了音箱的例子）。
# - **没说关键词**（4 个）：“再买多少能到金牌”没有“会员”“等级”，“啥时候能寄出来”没有“发货”，“先交了100块”没有“定金”，
#   “叫快递别送了”没有“取消”。
#
# 16 个里只有 6 个的正确段落在前三，聊天模型读三条还能救回来；其余的只能靠重排或更好的向量模型。
#
# 阈值判错的问题：

# %%
pd.DataFrame(
    [
        {
            "顾客问": one.text,
            "类型": {"answerable": "有答案", "near": "相近，没答案", "off": "无关"}[one.kind],
            "排第一的": title_of[final[one.id][0]],
            "分数": round(scores[one.id], 3),
            "结果": "不该答却答了" if scores[one.id] >= line.threshold else "该答却拒了",
        }
        for one in held_out
        if bool(one.right) != (scores[one.id] >= line.threshold)
    ]
)

# %% [markdown]
# 该答却拒的三个都是口语说法（“叫我室友去点上帮我拿”“直接扔菜鸟”“应该还没发吧”），正确的条目分别排在第 3、10、48，
# 放行后引用第一条也是错的。不该答却答的三个里，只有“给我寄一本”和排第一的条目谈的都是寄东西；洗地机撞上大家电配送，
# 药店撞上送货上楼，只是沾边。验证的一半里，与商城有关却没人写过答案的问题 9 个漏了 2 个，完全无关的 7 个漏了 1 个，
# 样本太小，看不出哪一类更难。真实流量里前一类很多，应该收进标注集。

# %% [markdown]
# ## 完整的链路：阈值加多轮
#
# 多了两样：阈值，以及检索之前的追问改写。有重排时阈值是 `RagpairRerank` 的 `min_score`，
# 没有时是 Qdrant 的 `score_threshold`（余弦本身；
# `search_type="similarity_score_threshold"` 用的是换算成 (1 + cos) / 2 的分数，两者不要混用）。
# `CHAT` 有值时由聊天模型改写，离线时是一条规则：不超过 12 个字的追问，前面补上最近两问的主题词。没有一条超过阈值，
# 分支直接走到拒答，不会去问聊天模型。回答里没有注明编号、或者编号不在召回的段落里，`checked` 也会拒答。

# %%
FILLER = re.compile(r"怎么|什么时候|为什么|什么|可以|我想|吗|啊|呢|的|了|一个|[？?，。]")


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


def checked(inputs: dict) -> str:
    """The answer, if it names a passage, and only such as were found; else the refusal."""
    named = set(re.findall(r"zh-p?\d+", inputs["answer"]))
    return inputs["answer"] if named and named <= {one.metadata["id"] for one in inputs["context"]} else REFUSAL


chain = (
    RunnablePassthrough.assign(standalone=condense)
    | RunnablePassthrough.assign(context=itemgetter("standalone") | retriever)
    | RunnablePassthrough.assign(answer=RunnableBranch((itemgetter("context"), write), lambda _: REFUSAL))
    | RunnablePassthrough.assign(answer=checked)
)

# %%
history: list[BaseMessage] = []
for said in ("礼品卡怎么用？", "丢了能补吗", "红烧肉怎么做才不腻"):
    reply = chain.invoke({"question": said, "history": history})
    print(f"顾客：{said}\n检索：{reply['standalone']}\n回答：{reply['answer']}\n")
    history += [HumanMessage(said), AIMessage(reply["answer"])]

# %%
reply = await chain.ainvoke({"question": "明天北京会下雨吗", "history": []})
reply["answer"]

# %%
before = history[:4]  # the two questions about gift cards, and their answers
unanswered = [one.text for one in desk.questions if not one.right]
after = [with_topic({"question": text, "history": before}) for text in unanswered]
passing = pd.DataFrame(
    {
        "没有答案的问题": unanswered,
        "单独问": [best_first(text)[0][1] >= line.threshold for text in unanswered],
        "接在礼品卡的两问后面": [best_first(text)[0][1] >= line.threshold for text in after],
    }
)
print("放行的：", passing.sum(numeric_only=True).to_dict(), f"，共 {len(passing)} 个")
passing[~passing["单独问"] & passing["接在礼品卡的两问后面"]]

# %% [markdown]
# 第三轮答错了：“红烧肉怎么做才不腻”只有 9 个字，离线规则把它当成追问，补上了礼品卡的主题词，于是越过阈值。
# 上表是同一条规则用在全部 32 个没答案的问题上：单独问放行 7 个，接在礼品卡的两问后面放行 17 个，
# “明天北京会下雨吗”“375乘以48等于几”都在其中。按字数判断是不是追问，就会这样；
# 换成聊天模型改写，完整的问题会原样重复，这个毛病才能解决。
#
# 改写值多少？20 个标注追问，不设阈值，分别用原话、改写后、人工写的独立问题去检索：


# %%
def messages(followup: helpdesk.FollowUp) -> list[BaseMessage]:
    return [message for asked, told in followup.history for message in (HumanMessage(asked), AIMessage(told))]


condensed = [
    condense.invoke({"question": one.text, "history": messages(one)}) for one in tqdm(desk.followups, desc="condense")
]
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
# 原话 10 个排对第一，补上主题词 17 个，人工改写 19 个，一个追问占 5 个百分点。
# 这条规则是在这 20 个追问上试了三种写法后挑的，17 是它最好的情形。它漏掉的三个，主题词都在，意思没拼起来：
# “有一期没还上”没有变成“逾期”，“那天”没有变成“约好的那天”。这正是需要聊天模型改写的地方。

# %% [markdown]
# ## 混合检索：要不要开，先量
#
# 混合检索把 BM25 的词面排名和向量排名用 RRF 合并，Qdrant 在一次查询里完成；`RagpairSparseEmbeddings` 在本地分词、
# 算 BM25 向量，不用下载。

# %%
words = QdrantVectorStore(
    client, COLLECTION, sparse_embedding=RagpairSparseEmbeddings(), retrieval_mode=RetrievalMode.SPARSE
)
ways = {"BM25": words, "混合（RRF）": hybrid}
found = {
    name: {one.id: [d.metadata["id"] for d in way.similarity_search(one.text, k=50)] for one in answerable}
    for name, way in tqdm(ways.items(), desc="hybrid")
}
found["向量"] = recalled
compared = pd.DataFrame({name: measured(ranked, answerable) for name, ranked in found.items()}).T
compared.round(3)

# %%
title = "NDCG@10: {:.2f} by meaning alone, {:.2f} hybrid".format(*compared["NDCG@10"][["向量", "混合（RRF）"]])
in_english = {"BM25": "words (BM25)", "混合（RRF）": "hybrid (RRF)", "向量": "meaning (dense)"}  # fonts
ax = compared["NDCG@10"].rename(in_english).plot.barh(figsize=(7, 2.5), color="0.4", xlim=(0, 1))
ax.set(xlabel=f"NDCG@10, mean of {len(answerable)} questions", title=title)
plt.show()

# %% [markdown]
# 在这套问题上，混合检索没有帮忙：0.657，不如单用向量的 0.715。BM25 单独只有 0.449，因为顾客的口语和条目用词对不上，
# 而 RRF 给两路一样的发言权，差的一路会把好的一路拖下来。不换前缀、用模型卡默认写法时，混合是 0.622，向量是 0.628，
# 也不占便宜。
#
# 混合检索在另一类中文数据上是有用的：百科段落（XQuAD 中文），问句和原文用词重合，NDCG@10 高约 0.02。
# 英文客服问题上它同样拖后腿，见[英文版](customer_service.ipynb)。所以它是一个选项，不该是默认；型号、错误码、
# 人名多的资料，先量再开。

# %% [markdown]
# ## payload 的用处
#
# 先过滤，再召回：按类别、按更新日期，一个集合里有多种语言时按语言。

# %%
recent_returns = models.Filter(
    must=[
        models.FieldCondition(key="metadata.language", match=models.MatchValue(value="zh")),
        models.FieldCondition(key="metadata.category", match=models.MatchAny(any=["returns", "refunds"])),
        models.FieldCondition(key="metadata.updated", range=models.DatetimeRange(gte=date(2025, 1, 1))),
    ]
)
filtered = store.similarity_search_with_score("想换个颜色，怎么弄", k=3, filter=recent_returns)
pd.DataFrame(
    [
        {**{key: document.metadata[key] for key in ("id", "category", "updated", "title")}, "score": score}
        for document, score in filtered
    ]
)

# %%
old = next(document for document in documents if document.metadata["id"] == "zh-011")
new = Document(
    old.page_content.replace("满59元", "满49元"),
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
# 给智能体用时，把检索器原样做成工具，阈值（和重排）都在里面。资料里没有答案的问题，工具多半返回空，
# 而不是三条不相干的段落；但 32 个里仍有 7 个会返回段落。阈值是按排第一的段落校准的，过线的第二、第三条不一定相关，
# 下面就是一例。

# %%
tool = create_retriever_tool(
    retriever,
    "kestova_help",
    "检索 Kestova 商城的常见问题和条款。参数是一个完整的中文问题。结果为空表示资料里没有答案；"
    "有结果不代表一定有答案，要看段落是否真的回答了问题。",
    document_prompt=PromptTemplate.from_template("[{id}，更新于 {updated}]\n{page_content}"),
    response_format="content_and_artifact",
)
print(tool.invoke("能用云闪付吗，或者到了再给现金也行"))

# %%
tool.invoke("红烧肉怎么做才不腻")

# %% [markdown]
# `ChatOpenAI(**CHAT).bind_tools([tool])` 就把它交给了聊天模型。描述里要写明“结果为空表示没有答案”，
# 否则模型会换个说法反复调用；也要写明“有结果不代表有答案”，否则模型会拿不相干的段落硬答。

# %%
numbers = {
    "ndcg_first_prompts": prefix["all"].iloc[0],
    "ndcg_second_prompts": prefix["all"].iloc[1],
    "ndcg_chosen_prompts_held_out": prefix["held out"][chosen],
    "right_first": effect["hit@1"].iloc[-1],
    "kept_right": threshold_effect["answered right"]["设阈值，验证的一半"],
    "right_side": threshold_effect["on the right side of the line"]["设阈值，验证的一半"],
    "followups_typed": turns["MRR"]["原话"],
    "followups_condensed": turns["MRR"]["改写后"],
    "ndcg_dense": compared["NDCG@10"]["向量"],
    "ndcg_hybrid": compared["NDCG@10"]["混合（RRF）"],
}
headline = {name: round(float(value), 3) for name, value in numbers.items()}
headline

# %% [markdown]
# ## 生产环境中要改什么
#
# - **模型**：三个服务，bf16 权重约 1.2、1.2 和 16 GB，同一张卡上用 `--gpu-memory-utilization` 分显存。
#   入库前先对前两个跑 `ragpair doctor URL`。
#
# ```bash
# vllm serve Qwen/Qwen3-Embedding-0.6B --runner pooling --port 8000
# vllm serve Qwen/Qwen3-Reranker-0.6B --runner pooling --port 8001 --hf-overrides \
#   '{"architectures": ["Qwen3ForSequenceClassification"],
#     "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": true}'
# vllm serve Qwen/Qwen3-8B --port 8002 --reasoning-parser qwen3 \
#   --enable-auto-tool-choice --tool-call-parser hermes  # for bind_tools
# ```
#
# - **先上重排**：换 bge-reranker-v2-m3 也行：`vllm serve BAAI/bge-reranker-v2-m3 --port 8001`。
#   上了之后阈值按概率重新校准。
# - **问题集**：从自己的会话日志里取两百个以上，没有答案的比例要和真实流量一致，`precision` 的含义取决于它。换模型、
#   换前缀、大改资料之后都要重新校准。
# - **索引**：用 Qdrant 服务，去掉 `force_recreate`。换向量模型就建新集合，用别名切换。upsert 只覆盖不删除，
#   下架的资料要按 id 删。`add_documents` 的 `batch_size` 调到 1024，默认一次 64 条喂不饱 GPU。
# - **监控**：每周看拒答率、最好一条的分数分布、各步耗时、改写前后不同的比例。拒掉的问题要有人读，那就是缺的条目。
# - **核对回答**：`checked` 只核对编号在不在 `context` 里，段落里是不是真有这句话，要另外抽查。
# - **这里没做的**：流式输出、查顾客自己的订单及权限、日志脱敏、多语言混合的集合、长对话下改写的测试。
