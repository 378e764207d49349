"""The help desk in three notebooks: their numbers, and that a chat model is given what it needs and nothing else."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from .conftest import Executed
from .execution import execute, stored

STANDALONE = {"en": "How long is a pickup order kept at the store?", "zh": "积分会过期吗？"}


@dataclass
class Chat:
    """What an OpenAI-like server was asked, and how it is reached."""

    url: str
    asked: list[str] = field(default_factory=list)

    def condensing(self) -> list[str]:
        return [text for text in self.asked if _condenses(text)]

    def answering(self) -> list[str]:
        return [text for text in self.asked if not _condenses(text)]

    def parameters(self, framework: str = "langchain") -> dict[str, Any]:
        body = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
        own = {"base_url": f"{self.url}/v1", **body}
        if framework == "llamaindex":
            own = {"api_base": f"{self.url}/v1", "additional_kwargs": body}
        return {"CHAT": {**own, "model": "a-chat-model", "api_key": "none"}}


def _condenses(text: str) -> bool:
    return "Rewrite the customer's" in text or "改写成一个" in text


@pytest.fixture
def chat() -> Iterator[Chat]:
    """A chat model that condenses everything to one question and answers with one text."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/chat/completions"
            assert body["model"] == "a-chat-model"
            assert body["chat_template_kwargs"] == {"enable_thinking": False}
            text = "\n".join(f"{message['role']}: {message['content']}" for message in body["messages"])
            found.asked.append(text)
            language = "zh" if "资料" in text or "改写" in text else "en"
            said = STANDALONE[language] if _condenses(text) else "The chat model's answer [en-075]"
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "usage": usage}
            data = json.dumps({**reply, "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Chat(f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def _threshold_and_condensing(numbers: dict[str, float]) -> None:
    assert 0.53 < numbers["right_first_reranked"] < 0.67
    assert abs(numbers["right_first_reranked"] - numbers["right_first_recalled"]) < 0.06  # the text promises no lift
    # a line that keeps all is right for 0.71, one that keeps nothing answers nothing
    assert numbers["right_side"] > 0.8
    assert numbers["kept_right"] > 0.5
    # without the history, follow-ups are as typed
    assert numbers["followups_condensed"] > numbers["followups_typed"] + 0.2
    assert numbers["ndcg_hybrid"] < numbers["ndcg_reranked"] - 0.05


def test_langchain_misses_these_with_broken_prompts_threshold_or_condensing(executed: Executed) -> None:
    numbers = executed("customer_service")
    _threshold_and_condensing(numbers)
    # were the prompts ignored or doubled, both would be alike
    assert 0.46 < numbers["ndcg_prompts"] < 0.57
    assert numbers["ndcg_prompts"] > numbers["ndcg_wrong_prompts"] + 0.04


def test_llamaindex_misses_these_with_a_broken_threshold_or_condensing(executed: Executed) -> None:
    _threshold_and_condensing(executed("customer_service_llamaindex"))


def test_chinese_misses_these_with_broken_prompts_threshold_or_condensing(executed: Executed) -> None:
    numbers = executed("customer_service_zh")
    # were the prompts ignored or doubled, all three would be alike
    assert numbers["ndcg_first_prompts"] > numbers["ndcg_second_prompts"] + 0.015
    assert numbers["ndcg_chosen_prompts_held_out"] > 0.64
    assert numbers["ndcg_dense"] > numbers["ndcg_first_prompts"] + 0.05  # the chosen prompts are those of the chain
    assert 0.5 < numbers["right_first"] < 0.65
    # a line that keeps all is right for 0.72, one that keeps nothing answers nothing
    assert numbers["right_side"] > 0.79
    assert numbers["kept_right"] > 0.43
    assert numbers["followups_condensed"] > numbers["followups_typed"] + 0.15
    assert numbers["ndcg_hybrid"] < numbers["ndcg_dense"] - 0.03


def test_both_frameworks_find_the_same() -> None:
    ours, theirs = (
        dict(stored(name).metadata["headline"]) for name in ("customer_service", "customer_service_llamaindex")
    )
    assert ours.pop("ndcg_hybrid") != theirs.pop("ndcg_hybrid")  # merged by rank, and by score
    assert len(theirs) >= 7
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize("name", ["customer_service", "customer_service_llamaindex"])
def test_a_chat_model_gets_history_and_passages_and_no_off_topic_question(
    executed: Executed, chat: Chat, name: str
) -> None:
    executed(name, chat.parameters("llamaindex" if name.endswith("llamaindex") else "langchain"))
    assert any(
        "I want to send a monitor back, how?" in text and "And without the box?" in text for text in chat.condensing()
    )
    assert any("en-076" in text and "Can someone else collect my order" in text for text in chat.answering())
    assert any(STANDALONE["en"] in text and "kept for 5 days" in text for text in chat.answering())
    assert not [text for text in chat.asked if "Lisbon" in text]


def test_the_chinese_chain_with_a_reranker_and_a_chat_model(executed: Executed, chat: Chat) -> None:
    # the embedded reranker reads no Chinese: this is for the way, not for the numbers
    executed("customer_service_zh", {"RERANK": {"base_url": "local", "scores": "raw"}, **chat.parameters()})
    assert any("礼品卡怎么用？" in text and "丢了能补吗" in text for text in chat.condensing())
    assert any("[zh-" in text and "退的钱是给我现金还是还到花呗里" in text for text in chat.answering())


def test_the_chinese_chat_model_gets_no_off_topic_question(executed: Executed, chat: Chat) -> None:
    executed("customer_service_zh", chat.parameters())
    assert any(STANDALONE["zh"] in text and "zh-070" in text for text in chat.answering())
    assert not [text for text in chat.asked if "明天北京会下雨吗" in text]


def _printed(name: str, parameters: dict[str, Any]) -> str:
    notebook, _ = execute(name, parameters)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(str(output.get("text", "")) for output in outputs)


@pytest.mark.parametrize("name", ["customer_service", "customer_service_llamaindex"])
def test_an_answer_whose_source_was_not_found_is_refused(chat: Chat, name: str) -> None:
    said = _printed(name, chat.parameters("llamaindex" if name.endswith("llamaindex") else "langchain"))
    # its source is en-075 whatever it is asked, and the monitor's passages are others
    assert "customer:  I want to send a monitor back, how?" in said
    assert re.search(r"monitor back, how\?\nasked for: .*\nanswer:    I don't know", said)
    assert "before: The chat model's answer [en-075]" in said
