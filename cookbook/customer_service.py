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
# A customer asks; the chain finds the passages in a FAQ and in the shop's policies and answers from the best one,
# with its source. Where the help desk holds no answer, it says so.
#
# - Qdrant recalls 50 passages, a reranker sorts them, and the best three above a threshold are answered from.
# - The threshold is fitted on one half of the labelled questions and judged on the other half.
# - A follow-up ("Could my wife go instead?") becomes a question that stands alone before anything is searched.
#
# At first everything runs in this process: small embedded models, Qdrant in memory, and rules in place of a chat
# model. The cell that sets `EMBED` is the only one to change for your own servers. The embedded models are for trying
# the chain out. How far they go is measured here, and where they gain nothing, the text says so. The text speaks of
# their numbers; with your models the tables and plots show yours. The notebook runs in the folder `cookbook/` of a
# clone.

# %%
# pip install "ragpair[cookbook]", and run it in the folder cookbook/ of a clone: the data lie there

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local"}, {"base_url": "local", "scores": "raw"}
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

pd.set_option("display.max_colwidth", 160)

# %% [markdown]
# ## The set
#
# Kestova is a fictional shop for electronics and home goods. The FAQ and most questions come with ragpair; the policy
# sections, the dates, the follow-ups and 20 more questions that nothing here answers are in `cookbook/data/helpdesk`.
# All texts and labels were written before a model was run on them. Customers ask as they do: long, angry, misspelt,
# rarely in the FAQ's words. Two policy sections answer three of the questions as well as the FAQ does, and count as
# right there.
#
# One of the 78 questions with an answer is 1.3 points in every mean below. Differences of two or three points mean
# nothing. Other notebooks have other numbers for this help desk: NDCG@10 of recall is 0.739 here, with the policies 90
# passages, 0.749 over the 76 FAQ entries in [hybrid_and_filters](hybrid_and_filters.ipynb), and 0.612 over the answers
# without their titles in [evaluate_your_own](evaluate_your_own.ipynb).

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
# A passage is its title and its text. Category, language and date go beside the vector, into what Qdrant calls the
# payload; they are not embedded. The point's id is a uuid5 of the passage's id, so a passage that is ingested again
# replaces its old version. `force_recreate` drops a collection of that name first, which suits a notebook. The indexes
# on the payload come before the data, since Qdrant builds its graph with them.


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
store = QdrantVectorStore.construct_instance(  # an empty collection
    embeddings, client_options=QDRANT, collection_name="kestova-help-en", force_recreate=True
)
for field, schema in [("category", "keyword"), ("language", "keyword"), ("updated", "datetime")]:
    with warnings.catch_warnings():  # an index only matters on a server; in memory the client says that it does nothing
        warnings.filterwarnings("ignore", message="Payload indexes have no effect")
        store.client.create_payload_index("kestova-help-en", f"metadata.{field}", field_schema=schema)
store.add_documents(documents, ids=[point_id(passage.id) for passage in desk.passages])
store.client.count("kestova-help-en").count

# %% [markdown]
# ## A plain chain
#
# Recall 50, rerank, keep 3, answer. `ContextualCompressionRetriever` is LangChain's place for a reranker, the rest is
# LCEL. Without a chat model, the best passage is quoted as it stands.

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
# The first answer is right. The second shows the problem: some passage always comes first, and a chain without a
# threshold answers from it.

# %% [markdown]
# ## What reranking does
#
# All questions go through recall and reranker once; the sections below reuse what comes out.

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
    names = {"success_1": "right first", "success_3": "in first 3", "success_50": "in first 50"}
    names |= {"ndcg_cut_10": "NDCG@10", "recip_rank": "MRR"}
    rows = pytrec_eval.RelevanceEvaluator(qrels, {"success.1,3,50", "ndcg_cut.10", "recip_rank"}).evaluate(run).values()
    return {title: float(np.mean([row[name] for row in rows])) for name, title in names.items()}


right = {question.id: question.right for question in answerable}
effect = pd.DataFrame({"recall": measured(recalled, right), "recall 50, reranked": measured(reranked_ids, right)}).T
effect.round(3)

# %%
ax = effect[["right first", "in first 3", "NDCG@10"]].T.plot.bar(
    figsize=(7, 3.5), rot=0, color=["0.75", "0.25"], ylim=(0, 1), ylabel=f"mean of {len(answerable)} questions"
)
ax.set_title(
    f"Right first: {effect['right first'].iloc[0]:.2f} by recall alone, {effect['right first'].iloc[1]:.2f} reranked"
)
plt.show()

# %% [markdown]
# The embedded reranker brings one more question of 78 to the first place (0.590 to 0.603), which is nothing to speak
# of. It compares token vectors of the same model that recalled, so it has little new to say. A real reranker
# (Qwen3-Reranker, bge-reranker-v2-m3) reads question and passage together, and this is the set to try it on: the
# right passage is among the 50 for every question, and first for only 60 %. What lies between is what a reranker can
# gain.

# %% [markdown]
# ## What the instruction prefix does
#
# MiniLM wants no prefix, so this is shown with multilingual-e5-small, which was trained with `query: ` before
# questions and `passage: ` before passages. `RagpairEmbeddings` writes what the model's card says; `query_prompt` and
# `document_prompt` replace it. The embedded e5 refuses text with neither prefix, so the mistake shown here is that of
# a client that sends questions like passages. With your own server in `EMBED`, the cell compares your model with and
# without its prompts.

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
rows, trials = {}, {}
for name, arguments in tqdm(variants.items(), desc="prefixes"):
    side, model = arguments.get("document_prompt"), RagpairEmbeddings(**arguments)
    if side not in trials:  # passages are embedded once for each of their prompts
        trials[side] = QdrantVectorStore.from_documents(
            documents, model, location=":memory:", collection_name="trial"
        ).client
    trial = QdrantVectorStore(trials[side], "trial", model)
    ranked = {one.id: [d.metadata["id"] for d in trial.similarity_search(one.text, k=50)] for one in answerable}
    rows[name] = measured(ranked, right)
prefix = pd.DataFrame(rows).T
prefix.round(3)

# %%
ax = prefix["NDCG@10"][::-1].plot.barh(figsize=(7, 2.5), color="0.4", xlim=(0, 1))
ax.set(
    xlabel=f"NDCG@10, mean of {len(answerable)} questions",
    title=f"Prompts move NDCG@10 by {prefix['NDCG@10'].max() - prefix['NDCG@10'].min():.2f}",
)
plt.show()

# %% [markdown]
# With the questions sent as passages, NDCG@10 falls from 0.516 to 0.441. Nothing warns of it: the vectors have the
# right width and length, and most answers look plausible.
#
# The third row is no mistake. E5's card gives `query: ` to both sides where the task is symmetric, and a FAQ is
# nearly that, since its passages begin with a question. Here it gains 0.113. So measure the prompts on your own
# questions; `document_prompt="query: "` is all it takes, and indexing again. On this English set MiniLM, without any
# prefix, is better than all three (0.739).

# %% [markdown]
# ## The threshold: when to say "I don't know"
#
# The score of the best passage decides whether to answer. `calibrate` draws the line from labelled questions: the
# best passage's score, and whether the help desk holds an answer at all. `precision=0.9` asks that of the questions
# let through, nine in ten have an answer here. Every second question of each kind is for fitting, the others judge.
# Among these, 39 have an answer (one is 2.6 points) and 16 have none (one is 6 points).

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
    read = {  # what the chat model is given
        one.id: {d.metadata["id"] for d in reranked[one.id][:3] if d.metadata["relevance_score"] >= threshold}
        for one in questions
    }
    with_answer, without = [one for one in questions if one.right], [one for one in questions if not one.right]
    first = {one.id: reranked_ids[one.id][0] in one.right for one in with_answer}
    return {
        "answered right": float(np.mean([kept[one.id] and first[one.id] for one in with_answer])),
        "answered wrong": float(np.mean([kept[one.id] and not first[one.id] for one in with_answer])),
        "has an answer: refused": float(np.mean([not kept[one.id] for one in with_answer])),
        "no answer: refused": float(np.mean([not kept[one.id] for one in without])),
        "right one handed on": float(np.mean([bool(read[one.id] & set(one.right)) for one in with_answer])),
        "let through: has an answer": sum(kept[one.id] for one in with_answer) / max(sum(kept.values()), 1),
        "on the right side of the line": float(np.mean([kept[one.id] == bool(one.right) for one in questions])),
    }


lowest = min(document.metadata["relevance_score"] for found in reranked.values() for document in found)
threshold_effect = pd.DataFrame(
    {
        "no threshold, held-out half": outcomes(held_out, lowest),
        "threshold, half it was fitted on": outcomes(fit, line.threshold),
        "threshold, held-out half": outcomes(held_out, line.threshold),
        "threshold, both halves": outcomes(desk.questions, line.threshold),
    }
).T
refused = threshold_effect.loc["threshold, held-out half", ["no answer: refused", "has an answer: refused"]].tolist()
threshold_effect.round(3)

# %%
grid = np.linspace(min(best_score(one) for one in desk.questions), max(best_score(one) for one in desk.questions), 100)
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
# On the held-out half the line at 0.320 refuses 13 of the 16 questions that have no answer; without it, all 16 would
# be answered. It also refuses 3 of the 39 that have one; two of these had the right passage first. Of the 39 let
# through, 36 have an answer: 0.92, where 0.9 was asked for. 49 of 55 held-out questions are on the right side, as many
# in a hundred as on the half that the line was fitted on.
#
# What the line aims at was chosen with both halves in view, so these numbers flatter a little. Three aims were tried,
# each with several settings of `precision`. By best F1, the two others do this on the held-out half: "the first
# passage is right" gives a line at 0.436, which refuses 15 of the 16 and two thirds of the questions with an answer;
# "one of the first three is right" gives 0.274, which refuses 9 of the 16 and 1 of the 39. What a wrong answer costs
# decides between them.
#
# What the line cannot do is tell a right passage from a wrong one. Of the 39 answers given 16 are wrong: 13 from a
# wrong passage, and 3 where there is no answer. A line at 0.4 would halve the 13 and refuse four in ten of the
# questions with an answer. That is work for a better reranker, or for a chat model that reads all passages that are
# handed on. The line cuts those, too: the right one is among them for 57 of all 78 questions (0.73), and for 30 of the
# 39 held-out ones. Without the line it would be among the first three for 0.81 of the 78.

# %% [markdown]
# ## The wrong answers
#
# The held-out questions that were answered from a wrong passage:

# %%
passage_of = {passage.id: passage for passage in desk.passages}
pd.DataFrame(
    [
        {
            "the customer asks": one.text,
            "answered with": f"{reranked_ids[one.id][0]}: {passage_of[reranked_ids[one.id][0]].title}",
            "right would be": f"{one.right[0]}: {passage_of[one.right[0]].title}",
            "rank of the right one": min(
                (reranked_ids[one.id].index(key) + 1 for key in one.right if key in reranked_ids[one.id]), default=None
            ),
            "score": round(best_score(one), 3),
        }
        for one in held_out
        if one.right and best_score(one) >= line.threshold and reranked_ids[one.id][0] not in one.right
    ]
)

# %% [markdown]
# What may have led there (with the embedded models, and as far as we can tell):
#
# - **The thing is named, the matter is not** (3 of the 13). "Coffee machine", "air fryer", "grill" pull towards
#   passages about appliances; that a wrong item came, that a present is unwanted, that money is missing is only
#   implied.
# - **Close relatives** (3). Late parcel and missed delivery, drops and the protection plan that covers them, guest
#   orders and two accounts: one condition apart. The right one is second or third, where a chat model may still read
#   it, if it is above the line.
# - **No content word in common** (2). "How big does my basket need to be so i dont pay postage" has neither "shipping"
#   nor "cost"; "where can i see where my stuff is" has neither "track" nor "order".
# - **One word elsewhere** (2). "Deals" leads to price matching, "take it back" to taking away old appliances.
# - **No cause that we could name** (3). The espresso machine in the workshop, the purchase that is missing in the
#   profile, the keyboard that came alone.
#
# And the held-out questions on the wrong side of the line:

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
# The three that are refused tell a story ("hate the green", "jumped on it", "pinches my temples") in few of the
# passage's words; two of them had the right passage first, one a hair below the line. The three that are answered
# although nothing answers them are near in words only: gift wrap and gift cards, a dishwasher and large appliances,
# money back and the card that paid. Two of nine such questions about the shop came through, and one of the seven
# others: too few to say which are harder.

# %% [markdown]
# ## The chain, with a threshold and a memory
#
# Two things are added: `min_score` on the reranker, and a step that condenses a follow-up before recall. With `CHAT`
# set, a chat model rewrites it. Offline a rule stands in: where a message points back ("it", "that", "and ..."), the
# topic words of the last two questions are put before it. Where no passage is above the line, the branch ends in the
# refusal, so no chat model is asked to answer. And where an answer names no passage, or one that was not found,
# `checked` refuses, too.


# %%
POINTS_BACK = re.compile(
    r"^(and|but|or|what if)\b|\b(it|its|that|those|them|they|there|then|this|these|one|instead)\b", re.I
)
COMMON = re.compile(
    r"(a|an|and|are|at|can|could|do|does|for|from|get|have|how|i|in|is|it|me|my|of|on|the|to|was|what|when|where|which|who|"
    r"why|will|with|would|you|your|want)$",
    re.I,
)


def with_topic(inputs: dict) -> str:
    """Stands in for the chat model: puts the topic words of the last two questions before what points back."""
    said = inputs["question"]
    if not POINTS_BACK.search(said):
        return said
    earlier = [message.content for message in inputs["history"] if message.type == "human"][-2:]
    topic = [word for word in re.findall(r"[\w'-]+", " ".join(earlier)) if not COMMON.match(word)]
    return f"{' '.join(topic)}: {said}"


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
    rewrite = RunnableLambda(with_topic)
condense = RunnableBranch((itemgetter("history"), rewrite), itemgetter("question"))

retriever = ContextualCompressionRetriever(
    base_compressor=RagpairRerank(**RERANK, top_n=3, min_score=line.threshold),
    base_retriever=store.as_retriever(search_kwargs={"k": 50}),
)


def checked(inputs: dict) -> str:
    """The answer, if it names a passage, and only such as were found; else the refusal."""
    named = set(re.findall(r"en-p?\d+", inputs["answer"]))
    return inputs["answer"] if named and named <= {one.metadata["id"] for one in inputs["context"]} else REFUSAL


chain = (
    RunnablePassthrough.assign(standalone=condense)
    | RunnablePassthrough.assign(context=itemgetter("standalone") | retriever)
    | RunnablePassthrough.assign(answer=RunnableBranch((itemgetter("context"), write), lambda _: REFUSAL))
    | RunnablePassthrough.assign(answer=checked)
)

# %%
history: list[BaseMessage] = []
for said in ("I want to send a monitor back, how?", "And without the box?", "Who won the world cup in 1998?"):
    reply = chain.invoke({"question": said, "history": history})
    print(f"customer:  {said}\nasked for: {reply['standalone']}\nanswer:    {reply['answer']}\n")
    history += [HumanMessage(said), AIMessage(reply["answer"])]

# %%
reply = await chain.ainvoke({"question": "What's the weather going to be like in Lisbon?", "history": []})
reply["answer"]

# %%
before = history[:4]  # the two questions about the monitor, and their answers
unanswered = [one.text for one in desk.questions if not one.right]
after = [with_topic({"question": text, "history": before}) for text in unanswered]


def passes(text: str) -> bool:
    return rerank_all.compress_documents(recall.invoke(text), text)[0].metadata["relevance_score"] >= line.threshold


passing = pd.DataFrame(
    {
        "a question without an answer": unanswered,
        "passes alone": [passes(text) for text in unanswered],
        "passes after the monitor": [passes(text) for text in after],
    }
)
print(passing.sum(numeric_only=True).to_dict(), "of", len(passing))
passing[~passing["passes alone"] & passing["passes after the monitor"]]

# %% [markdown]
# The rule has its price. It takes "it" anywhere in a message for a pointer back, so a question about something else is
# given the topic and may rise above the line: of the 32 questions without an answer 7 pass when asked alone, and 10
# after the two questions about the monitor. A chat model that sees a complete question repeats it.
#
# How much does condensing matter? Twenty labelled follow-ups, recalled and reranked without the threshold: as they
# were typed, as condensed, and as a person would have written them.


# %%
def messages(followup: helpdesk.FollowUp) -> list[BaseMessage]:
    return [message for asked, told in followup.history for message in (HumanMessage(asked), AIMessage(told))]


condensed = [
    condense.invoke({"question": one.text, "history": messages(one)}) for one in tqdm(desk.followups, desc="condense")
]
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
turns = pd.DataFrame(
    {name: measured(found, {one.id: one.right for one in desk.followups}) for name, found in followed.items()}
).T
turns.round(3)

# %%
pd.DataFrame(
    [
        {
            "history": one.history[-1][0],
            "follow-up": one.text,
            "condensed": text,
            "first": followed["condensed"][one.id][0],
            "right": ", ".join(one.right),
        }
        for one, text in zip(desk.followups, condensed, strict=True)
        if followed["condensed"][one.id][0] not in one.right
    ]
)

# %% [markdown]
# As typed, 9 of the 20 follow-ups find the right passage first; with the topic put before them 17; written by hand
# all 20. One follow-up weighs 5 points. The rule is the best of five that were tried on these very follow-ups, so 17
# is its best case. The three that it misses keep the topic and lose the sense: "instalments" lands at mounting TVs,
# and "deliver Portugal" says nothing of abroad. A chat model writes such questions as a person would; that, not the
# last point of recall, is what it is needed for here.

# %% [markdown]
# ## Hybrid search is a choice
#
# Hybrid search adds BM25 over words and merges both rankings by reciprocal rank fusion (RRF). Qdrant does it inside
# one query; `RagpairSparseEmbeddings` makes the word vectors without a download.

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
hybrid = pd.concat(
    [
        effect.rename({"recall": "meaning (dense)", "recall 50, reranked": "dense, reranked"}),
        pd.DataFrame({mode: measured(ranked, right) for mode, ranked in found.items()}).T,
    ]
)
hybrid_store.client.delete_collection("kestova-help-en-hybrid")
hybrid.round(3)

# %%
title = "NDCG@10: {:.2f} by meaning alone, {:.2f} hybrid".format(
    *hybrid["NDCG@10"][["meaning (dense)", "hybrid (RRF)"]]
)
ax = hybrid["NDCG@10"][["words (BM25)", "hybrid (RRF)", "meaning (dense)"]].plot.barh(
    figsize=(7, 2.5), color="0.4", xlim=(0, 1)
)
ax.set(xlabel=f"NDCG@10, mean of {len(answerable)} questions", title=title)
plt.show()

# %% [markdown]
# Here it hurts: 0.649 against 0.739. Customers seldom use the FAQ's words, so BM25 alone reaches 0.295, and RRF
# counts a poor ranking as much as a good one. The reranker repairs the order, since most passages are among the 50
# either way, and then hybrid search has cost a second index and gained nothing. It is for part numbers, error codes
# and names. The [Chinese twin](customer_service_zh.ipynb) measures it on Chinese passages.

# %% [markdown]
# ## What the payload is for
#
# A filter cuts the candidates down before recall: by category, by language where a collection holds several, or by
# date.

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
old = next(document for document in documents if document.metadata["id"] == "en-075")
new = Document(
    old.page_content.replace("kept for 5 days", "kept for 7 days"),
    metadata={**old.metadata, "updated": "2026-11-02"},
)
question = {"question": "it's waiting at your shop in town, how many days will it still be there", "history": []}
counts = [store.client.count("kestova-help-en").count]
print("before:", chain.invoke(question)["answer"])
store.add_documents([new], ids=[point_id("en-075")])
print("after: ", chain.invoke(question)["answer"])
counts.append(store.client.count("kestova-help-en").count)
print("points before and after:", counts)

# %% [markdown]
# ## The same as a tool
#
# An agent wants retrieval as a tool. The retriever goes in as it is, with reranker and threshold inside, so most
# calls with a question that the help desk cannot answer return nothing rather than three odd passages. Not all: 7 of
# those 32 questions still get some. And the line was fitted on first passages. A second or third one above it need not
# be relevant, as this call shows.

# %%
tool = create_retriever_tool(
    retriever,
    "kestova_help",
    "Searches Kestova's FAQ and policies. Takes one complete question in English. An empty result means that they do "
    "not answer it. A result does not mean that they do: read whether the passages answer the question.",
    document_prompt=PromptTemplate.from_template("[{id}, updated {updated}]\n{page_content}"),
    response_format="content_and_artifact",
)
tool.invoke("can i use paypal or amex").splitlines()

# %%
tool.invoke("Who won the world cup in 1998?")

# %% [markdown]
# `ChatOpenAI(**CHAT).bind_tools([tool])` offers it to a chat model. The description says that an empty result means
# "not in the help desk", since models otherwise call again with other words, and that a result proves no answer.

# %%
found_numbers = {
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
headline = {name: round(float(value), 3) for name, value in found_numbers.items()}
headline

# %% [markdown]
# ## What you would change in production
#
# - **Models.** Three servers; in bf16 the weights are about 1.2, 1.2 and 16 GB, and on one card each is given its
#   share by `--gpu-memory-utilization`. Run `ragpair doctor URL` on the first two before anything is indexed.
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
# - **Questions.** Two hundred or more from your own logs, as many without an answer as your traffic has: `precision`
#   depends on that share. Fit the line again after every change of model, prompt or corpus; a threshold for cosines
#   means nothing on the probabilities of a reranker.
# - **Index.** A Qdrant server with `QDRANT = {"url": ...}`, no `force_recreate`. A new embedding model gets a new
#   collection, and an alias is switched over. Upserts replace and never delete: remove the ids that left the source.
#   `batch_size=1024` in `add_documents`, since 64 texts a request leave a GPU idle.
# - **Watch** the share refused and the best passage's scores week by week, the time of each step, and how often a
#   condensed question differs from what was typed. Read the refused questions: they are the FAQ entries that are
#   missing.
# - **Check the answer** further than `checked` does: that a passage was found does not say that the answer is in it.
# - **Left out**: streaming, a customer's own orders and who may see them, personal data in logs, languages mixed in
#   one collection, tests of the condensing prompt on longer conversations.
