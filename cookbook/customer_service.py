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
# # Help-desk answers with LangChain
#
# HEAD

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local"}, {"base_url": "local", "scores": "raw"}
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}
CHAT = None  # offline: a rule condenses follow-ups, and the best passage is quoted
# CHAT = {"base_url": "http://localhost:8002/v1", "model": "Qwen/Qwen3-8B", "api_key": "none"}

# %%
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

pd.set_option("display.max_colwidth", 160)

# %% [markdown]
# ## The set
#
# SET

# %%
desk = helpdesk.load("en")
answerable = [question for question in desk.questions if question.right]
pd.DataFrame(
    {
        "how many": {
            "FAQ entries": sum(passage.kind == "faq" for passage in desk.passages),
            "policy sections": sum(passage.kind == "policy" for passage in desk.passages),
            "questions with an answer": len(answerable),
            "questions about the shop without one": sum(question.kind == "near" for question in desk.questions),
            "questions about something else": sum(question.kind == "off" for question in desk.questions),
            "follow-ups": len(desk.followups),
        }
    }
)

# %% [markdown]
# ## Ingest
#
# INGEST


# %%
def point_id(passage_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://kestova.example/help/{passage_id}"))


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
embeddings = RagpairEmbeddings(**EMBED)
store = QdrantVectorStore.from_documents(
    documents,
    embeddings,
    ids=[point_id(passage.id) for passage in desk.passages],
    collection_name="kestova-help-en",
    force_recreate=True,
    **QDRANT,
)
for field, schema in [("category", "keyword"), ("language", "keyword"), ("updated", "datetime")]:
    with warnings.catch_warnings():  # an index only matters on a server; in memory the client says that it does nothing
        warnings.filterwarnings("ignore", message="Payload indexes have no effect")
        store.client.create_payload_index("kestova-help-en", f"metadata.{field}", field_schema=schema)
store.client.count("kestova-help-en").count

# %% [markdown]
# ## A plain chain
#
# PLAIN

# %%
REFUSAL = "I don't know. A colleague will look at your question."


def passages_of(documents: list[Document]) -> str:
    return "\n\n".join(
        f"[{document.metadata['id']}, updated {document.metadata['updated']}]\n{document.page_content}"
        for document in documents
    )


def quote(inputs: dict) -> str:
    """Stands in for the chat model: quotes the best passage and names its source."""
    best = inputs["context"][0]
    said = best.page_content.partition("\n")[2]
    return f"{said} [{best.metadata['id']}, updated {best.metadata['updated']}]"


if CHAT:
    answer_prompt = ChatPromptTemplate.from_messages(
        [
            (
                "system",
                "You answer customers of the shop Kestova from the passages alone, in three sentences at most, and end "
                f"with the id of the passage in brackets. If the passages do not answer the question, say: {REFUSAL}",
            ),
            ("human", "Passages:\n\n{passages}\n\nQuestion: {standalone}"),
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

recall = store.as_retriever(search_kwargs={"k": 50})
reranker = RagpairRerank(**RERANK, top_n=3)
plain = {
    "standalone": RunnablePassthrough(),
    "context": ContextualCompressionRetriever(base_compressor=reranker, base_retriever=recall),
} | RunnablePassthrough.assign(answer=write)

for question in ("Can my husband grab the thing from your counter for me?", "Who won the world cup in 1998?"):
    print(f"{question}\n-> {plain.invoke(question)['answer']}\n")

# %% [markdown]
# PLAIN2

# %% [markdown]
# ## What reranking does
#
# RERANK

# %%
rerank_all = RagpairRerank(**RERANK, top_n=None)
recalled, reranked = {}, {}
for question in tqdm(desk.questions, desc="recall 50, rerank"):
    found = recall.invoke(question.text)
    recalled[question.id] = [document.metadata["id"] for document in found]
    reranked[question.id] = rerank_all.compress_documents(found, question.text)
reranked_ids = {key: [document.metadata["id"] for document in found] for key, found in reranked.items()}


# %%
def measured(rankings: dict[str, list[str]], right: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """Means over the questions of `right`; by pytrec_eval."""
    qrels = {key: dict.fromkeys(ids, 1) for key, ids in right.items()}
    run = {key: {one: 1 / rank for rank, one in enumerate(rankings[key], 1)} for key in right}
    names = {"success_1": "right first", "success_3": "right in first 3", "ndcg_cut_10": "NDCG@10", "recip_rank": "MRR"}
    rows = pytrec_eval.RelevanceEvaluator(qrels, {"success.1,3", "ndcg_cut.10", "recip_rank"}).evaluate(run).values()
    return {title: float(np.mean([row[name] for row in rows])) for name, title in names.items()}


right = {question.id: question.right for question in answerable}
effect = pd.DataFrame({"recall": measured(recalled, right), "recall 50, reranked": measured(reranked_ids, right)}).T
effect.round(3)

# %%
ax = effect[["right first", "right in first 3", "NDCG@10"]].T.plot.bar(
    figsize=(7, 3.5), rot=0, color=["0.75", "0.25"], ylim=(0, 1), ylabel=f"mean of {len(answerable)} questions"
)
ax.set_title("RERANKTITLE")
plt.show()

# %% [markdown]
# RERANK2

# %% [markdown]
# ## What the instruction prefix does
#
# PREFIX

# %%
if EMBED["base_url"] == "local":
    e5 = {"base_url": "local", "model": "multilingual-e5-small"}
    variants = {
        "question as query, passage as passage": e5,
        "both as passage": {**e5, "query_prompt": "passage: "},
        "both as query": {**e5, "document_prompt": "query: "},
    }
else:
    variants = {
        "the authors' prompts": EMBED,
        "no prompts": {**EMBED, "query_prompt": "{text}", "document_prompt": "{text}"},
    }
rows = {}
for name, arguments in tqdm(variants.items(), desc="prefixes"):
    trial = QdrantVectorStore.from_documents(documents, RagpairEmbeddings(**arguments), location=":memory:")
    found = {one.id: [d.metadata["id"] for d in trial.similarity_search(one.text, k=50)] for one in answerable}
    rows[name] = measured(found, right)
prefix = pd.DataFrame(rows).T
prefix.round(3)

# %%
ax = prefix["NDCG@10"][::-1].plot.barh(figsize=(7, 2.5), color="0.4", xlim=(0, 1))
ax.set(xlabel=f"NDCG@10, mean of {len(answerable)} questions", title="PREFIXTITLE")
plt.show()

# %% [markdown]
# PREFIX2

# %% [markdown]
# ## The threshold: when to say "I don't know"
#
# THRESHOLD

# %%
fit, held_out = [], []
for kind in ("answerable", "near", "off"):
    for number, question in enumerate([one for one in desk.questions if one.kind == kind]):
        (held_out if number % 2 else fit).append(question)


def best_score(question: helpdesk.Question) -> float:
    return reranked[question.id][0].metadata["relevance_score"]


score_kind = reranker.reranker.describe()["score_kind"]
line = calibrate(
    [best_score(question) for question in fit],
    [int(bool(question.right)) for question in fit],
    precision=0.9,
    score_kind=score_kind,
)
print(f"scores are of the kind {score_kind!r}; threshold {line.threshold:.3f}, fitted on {len(fit)} questions")


# %%
def outcomes(questions: list[helpdesk.Question], threshold: float) -> dict[str, float]:
    """What becomes of the questions, as shares."""
    kept = {one.id: best_score(one) >= threshold for one in questions}
    with_answer, without = [one for one in questions if one.right], [one for one in questions if not one.right]
    first = {one.id: reranked_ids[one.id][0] in one.right for one in with_answer}
    return {
        "answered right": float(np.mean([kept[one.id] and first[one.id] for one in with_answer])),
        "answered wrong": float(np.mean([kept[one.id] and not first[one.id] for one in with_answer])),
        "refused": float(np.mean([not kept[one.id] for one in with_answer])),
        "no answer here: refused": float(np.mean([not kept[one.id] for one in without])),
        "on the right side of the line": float(np.mean([kept[one.id] == bool(one.right) for one in questions])),
    }


lowest = min(best_score(one) for one in desk.questions)
threshold_effect = pd.DataFrame(
    {
        "no threshold, held-out half": outcomes(held_out, lowest),
        "threshold, half it was fitted on": outcomes(fit, line.threshold),
        "threshold, held-out half": outcomes(held_out, line.threshold),
    }
).T
threshold_effect.round(3)

# %%
grid = np.linspace(lowest, max(best_score(one) for one in desk.questions), 100)
swept = pd.DataFrame([outcomes(held_out, threshold) for threshold in grid], index=grid)
ax = swept[["answered right", "answered wrong", "refused", "no answer here: refused"]].plot(
    figsize=(7, 3.5), color=["0.0", "0.5", "0.75", "0.3"], style=["-", "--", "-.", ":"]
)
ax.axvline(line.threshold, color="0.6", linewidth=6, alpha=0.4)
ax.set(
    xlabel=f"threshold on the best passage's score ({score_kind}); grey: the one chosen",
    ylabel="share of held-out questions",
    title="THRESHOLDTITLE",
)
plt.show()

# %% [markdown]
# THRESHOLD2

# %% [markdown]
# ## The wrong answers
#
# WRONG

# %%
passage_of = {passage.id: passage for passage in desk.passages}
wrong = [
    {
        "the customer asks": one.text,
        "answered with": f"{reranked_ids[one.id][0]}: {passage_of[reranked_ids[one.id][0]].title}",
        "right would be": f"{one.right[0]}: {passage_of[one.right[0]].title}",
        "rank of the right one": min(reranked_ids[one.id].index(key) + 1 for key in one.right if key in reranked_ids[one.id])
        if set(one.right) & set(reranked_ids[one.id])
        else None,
        "score": round(best_score(one), 3),
    }
    for one in held_out
    if one.right and best_score(one) >= line.threshold and reranked_ids[one.id][0] not in one.right
]
pd.DataFrame(wrong)

# %% [markdown]
# WRONG2

# %%
pd.DataFrame(
    [
        {
            "the customer asks": one.text,
            "kind": one.kind,
            "best passage": f"{reranked_ids[one.id][0]}: {passage_of[reranked_ids[one.id][0]].title}",
            "score": round(best_score(one), 3),
            "so it is": "answered wrongly" if best_score(one) >= line.threshold else "refused",
        }
        for one in held_out
        if bool(one.right) != (best_score(one) >= line.threshold)
    ]
)

# %% [markdown]
# WRONG3

# %% [markdown]
# ## The chain, with a threshold and a memory
#
# CHAIN


# %%
def last_question_and(inputs: dict) -> str:
    """Stands in for the chat model: puts the last question before a short follow-up."""
    before = [message.content for message in inputs["history"] if message.type == "human"]
    said = inputs["question"]
    short = len(said.split()) <= 9
    return f"{before[-1]} {said}" if short else said


if CHAT:
    condense_prompt = ChatPromptTemplate.from_messages(
        [
            (
                "system",
                "Rewrite the customer's last message as one question that can be understood without the conversation. "
                "Do not answer it. If it is complete already, repeat it.",
            ),
            ("placeholder", "{history}"),
            ("human", "{question}"),
        ]
    )
    rewrite = condense_prompt | ChatOpenAI(**CHAT, temperature=0) | StrOutputParser()
else:
    rewrite = RunnableLambda(last_question_and)
condense = RunnableBranch((itemgetter("history"), rewrite), itemgetter("question"))

retriever = ContextualCompressionRetriever(
    base_compressor=RagpairRerank(**RERANK, top_n=3, min_score=line.threshold),
    base_retriever=store.as_retriever(search_kwargs={"k": 50}),
)
chain = (
    RunnablePassthrough.assign(standalone=condense)
    | RunnablePassthrough.assign(context=itemgetter("standalone") | retriever)
    | RunnablePassthrough.assign(answer=RunnableBranch((itemgetter("context"), write), lambda _: REFUSAL))
)

# %%
history: list[BaseMessage] = []
for said in ("How does pickup in a store work?", "Could my wife go instead?", "Who won the world cup in 1998?"):
    reply = chain.invoke({"question": said, "history": history})
    print(f"customer:  {said}\nasked for: {reply['standalone']}\nanswer:    {reply['answer']}\n")
    history += [HumanMessage(said), AIMessage(reply["answer"])]

# %%
reply = await chain.ainvoke({"question": "Who won the world cup in 1998?", "history": []})
reply["answer"]

# %% [markdown]
# CHAIN2

# %%
def messages(followup: helpdesk.FollowUp) -> list[BaseMessage]:
    return [message for asked, told in followup.history for message in (HumanMessage(asked), AIMessage(told))]


condensed = condense.batch([{"question": one.text, "history": messages(one)} for one in desk.followups])
asked = {
    "as typed": [one.text for one in desk.followups],
    "condensed": condensed,
    "standalone, written by hand": [one.standalone for one in desk.followups],
}
followed = {
    name: {
        one.id: [d.metadata["id"] for d in rerank_all.compress_documents(recall.invoke(text), text)]
        for one, text in zip(desk.followups, texts, strict=True)
    }
    for name, texts in tqdm(asked.items(), desc="follow-ups")
}
turns = pd.DataFrame({name: measured(found, {one.id: one.right for one in desk.followups}) for name, found in followed.items()}).T
turns.round(3)

# %%
pd.DataFrame(
    [
        {"history": one.history[-1][0], "follow-up": one.text, "condensed": text, "first": followed["condensed"][one.id][0], "right": ", ".join(one.right)}
        for one, text in zip(desk.followups, condensed, strict=True)
        if followed["condensed"][one.id][0] not in one.right
    ]
)

# %% [markdown]
# CHAIN3

# %% [markdown]
# ## Hybrid search is a choice
#
# HYBRID

# %%
hybrid_store = QdrantVectorStore.from_documents(
    documents,
    embeddings,
    ids=[point_id(passage.id) for passage in desk.passages],
    sparse_embedding=RagpairSparseEmbeddings(),
    retrieval_mode=RetrievalMode.HYBRID,
    sparse_vector_params={"modifier": models.Modifier.IDF},
    collection_name="kestova-help-en-hybrid",
    force_recreate=True,
    **QDRANT,
)
found = {mode: {} for mode in ("words (BM25)", "hybrid (RRF)", "hybrid, reranked")}
words = QdrantVectorStore(
    client=hybrid_store.client,
    collection_name="kestova-help-en-hybrid",
    sparse_embedding=RagpairSparseEmbeddings(),
    retrieval_mode=RetrievalMode.SPARSE,
)
for one in tqdm(answerable, desc="hybrid"):
    candidates = hybrid_store.similarity_search(one.text, k=50)
    found["words (BM25)"][one.id] = [d.metadata["id"] for d in words.similarity_search(one.text, k=50)]
    found["hybrid (RRF)"][one.id] = [d.metadata["id"] for d in candidates]
    found["hybrid, reranked"][one.id] = [d.metadata["id"] for d in rerank_all.compress_documents(candidates, one.text)]
hybrid = pd.concat([effect.rename({"recall": "meaning (dense)", "recall 50, reranked": "dense, reranked"}), pd.DataFrame({mode: measured(ranked, right) for mode, ranked in found.items()}).T])
hybrid.round(3)

# %%
ax = hybrid["NDCG@10"][["words (BM25)", "hybrid (RRF)", "meaning (dense)"]].plot.barh(figsize=(7, 2.5), color="0.4", xlim=(0, 1))
ax.set(xlabel=f"NDCG@10, mean of {len(answerable)} questions", title="HYBRIDTITLE")
plt.show()

# %% [markdown]
# HYBRID2

# %% [markdown]
# ## What the payload is for
#
# PAYLOAD

# %%
recent_returns = models.Filter(
    must=[
        models.FieldCondition(key="metadata.language", match=models.MatchValue(value="en")),
        models.FieldCondition(key="metadata.category", match=models.MatchAny(any=["returns", "refunds"])),
        models.FieldCondition(key="metadata.updated", range=models.DatetimeRange(gte=date(2025, 1, 1))),
    ]
)
filtered = ContextualCompressionRetriever(
    base_compressor=reranker, base_retriever=store.as_retriever(search_kwargs={"k": 50, "filter": recent_returns})
)
pd.DataFrame(
    [
        {key: document.metadata[key] for key in ("id", "category", "updated", "title", "relevance_score")}
        for document in filtered.invoke("how do I send something back that I don't like")
    ]
)

# %%
old = next(document for document in documents if document.metadata["id"] == "en-027")
new = Document(
    old.page_content.replace("$3.95", "$4.50"), metadata={**old.metadata, "updated": date.today().isoformat()}
)
before = store.client.count("kestova-help-en").count
store.add_documents([new], ids=[point_id("en-027")])
after = store.client.count("kestova-help-en").count
print(before, "points before,", after, "after")
print(chain.invoke({"question": "do I have to pay the postage when I send back a trouser press I simply dont like", "history": []})["answer"])
store.add_documents([old], ids=[point_id("en-027")])

# %% [markdown]
# ## The same as a tool
#
# TOOL

# %%
tool = create_retriever_tool(
    retriever,
    "kestova_help",
    "Searches Kestova's FAQ and policies. Takes one complete question in English. Returns nothing if they do not answer it.",
    document_prompt=PromptTemplate.from_template("[{id}, updated {updated}]\n{page_content}"),
    response_format="content_and_artifact",
)
tool.invoke("can i use paypal or amex").splitlines()

# %%
tool.invoke("Who won the world cup in 1998?")

# %% [markdown]
# TOOL2

# %%
headline = {
    "right_first_recalled": effect["right first"]["recall"],
    "right_first_reranked": effect["right first"]["recall 50, reranked"],
    "ndcg_reranked": effect["NDCG@10"]["recall 50, reranked"],
    "ndcg_prompts": prefix["NDCG@10"].iloc[0],
    "ndcg_wrong_prompts": prefix["NDCG@10"].iloc[1],
    "kept_right": threshold_effect["answered right"]["threshold, held-out half"],
    "right_side": threshold_effect["on the right side of the line"]["threshold, held-out half"],
    "followups_typed": turns["MRR"]["as typed"],
    "followups_condensed": turns["MRR"]["condensed"],
    "ndcg_hybrid": hybrid["NDCG@10"]["hybrid (RRF)"],
}
headline

# %% [markdown]
# ## What you would change in production
#
# PROD
