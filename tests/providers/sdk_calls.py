"""What programs call of each SDK, against the loopback servers: whole, streamed, asynchronous."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple

import anthropic
import boto3
import cohere
import dashscope
import groq
import langchain_openai
import litellm
import ollama
import openai
import test_bedrock as of_aws
import test_cohere as of_coheres
import test_dashscope as of_alibaba
import test_interactions as of_googles
import test_mistral as of_mistrals
import test_ollama as of_ollamas
from botocore.config import Config
from google import genai
from mistralai.client import Mistral
from openai_wire import ASK, chat, embeddings, groq_chunks
from openai_wire import serving as compatible
from usage_samples import replaying
from wire import Answer, as_event_stream, as_json, as_ndjson, as_sse, serving

__all__ = ["CALLS", "KEPT", "LITELLM", "OPENAI_CHAT", "Call", "drained"]

KEPT: list[Any] = []
"""Clients that are needed until the end of a stream."""


class Call(NamedTuple):
    """A call of an SDK: `ask(url)` makes it, `read` reads its result to the end.

    `tokens` is what the provider says that it used. What `is_async` gives coroutines. Some
    responses have no id.
    """

    name: str
    serving: Callable[[], AbstractContextManager[str]]
    tokens: int
    ask: Callable[[str], Any]
    read: Callable[[Any], Any] | None = None
    is_async: bool = False
    has_id: bool = True


def kept(client: Any) -> Any:
    KEPT.append(client)
    return client


def drained(stream: Any) -> None:
    for _ in stream:
        pass


async def drained_async(stream: Any) -> None:
    async for _ in stream:
        pass


def entered(manager: Any) -> None:
    with manager as stream:
        drained(stream)


async def entered_async(manager: Any) -> None:
    async with manager as stream:
        await drained_async(stream)


def parsed(raw: Any) -> None:
    drained(raw.parse())


async def parsed_async(raw: Any) -> None:
    body = raw.parse()
    body = await body if isawaitable(body) else body
    await drained_async(body) if hasattr(body, "__aiter__") else drained(body)


def entered_and_parsed(manager: Any) -> None:
    with manager as raw:
        parsed(raw)


async def entered_and_parsed_async(manager: Any) -> None:
    async with manager as raw:
        await parsed_async(raw)


def entered_by_lines(manager: Any) -> None:
    with manager as raw:
        drained(raw.iter_lines())


async def entered_by_lines_async(manager: Any) -> None:
    async with manager as raw:
        await drained_async(raw.iter_lines())


def held(name: str) -> Callable[[Any], None]:
    return lambda response: drained(response[name])


LOCAL: dict[str, Any] = {"api_key": "none", "max_retries": 0}
STREAM: dict[str, Any] = {"stream": True}
INCLUDED: dict[str, Any] = {"stream_options": {"include_usage": True}}
WITH_USAGE: dict[str, Any] = {**STREAM, **INCLUDED}
CHAT: dict[str, Any] = {"model": "gpt-5", "messages": ASK}
INPUT: dict[str, Any] = {"model": "gpt-5", "input": "?"}
DECIDE: dict[str, Any] = {**INPUT, "questions": []}
CLAUDE: dict[str, Any] = {"model": "claude-sonnet-5", "messages": ASK, "max_tokens": 9}
GEMINI: dict[str, Any] = {"model": "gemini-2.5-pro", "contents": "?"}
MAGISTRAL: dict[str, Any] = {"model": "magistral-medium", "messages": ASK}
COMMAND: dict[str, Any] = {"model": "command-a", "messages": ASK}
INCREMENTAL: dict[str, Any] = {**STREAM, "incremental_output": True}


def of_openai(url: str, kind: Any = openai.OpenAI) -> Any:
    return kept(kind(base_url=url, **LOCAL))


def of_openai_async(url: str) -> Any:
    return of_openai(url, openai.AsyncOpenAI)


def of_anthropic(url: str, kind: Any = anthropic.Anthropic) -> Any:
    return kept(kind(base_url=url, **LOCAL)).messages


def of_anthropic_async(url: str) -> Any:
    return of_anthropic(url, anthropic.AsyncAnthropic)


def of_google(url: str) -> Any:
    return kept(genai.Client(api_key="none", http_options={"base_url": url}))


def of_mistral(url: str) -> Any:
    return kept(Mistral(api_key="none", server_url=url))


def of_cohere(url: str, kind: Any = cohere.ClientV2) -> Any:
    return kept(kind("none", base_url=url))


def of_cohere_async(url: str) -> Any:
    return of_cohere(url, cohere.AsyncClientV2)


def of_ollama(url: str, **more: Any) -> Any:
    return kept(ollama.Client(url)).chat("qwen3:8b", ASK, **more)


def of_ollama_async(url: str, **more: Any) -> Any:
    return kept(ollama.AsyncClient(url)).chat("qwen3:8b", ASK, **more)


def of_bedrock(url: str) -> Any:
    return kept(
        boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(retries={"total_max_attempts": 1}),
        )
    )


def of_groq(url: str, kind: Any = groq.Groq) -> Any:
    return kept(kind(base_url=url.removesuffix("/v1"), **LOCAL)).chat.completions


def of_groq_async(url: str) -> Any:
    return of_groq(url, groq.AsyncGroq)


def of_dashscope(what: Any, url: str, **more: Any) -> Any:
    request: dict[str, Any] = {"model": "qwen-plus", "messages": ASK, **more}
    return what.call(api_key="none", base_address=url, **request)


def of_dashscope_vectors(what: Any, url: str) -> Any:
    return what.call(
        api_key="none", base_address=url, model="multimodal-embedding-v1", input=[{"text": "a"}]
    )


def of_litellm(function: str, model: str, url: str, **more: Any) -> Any:
    return getattr(litellm, function)(model=model, messages=ASK, api_base=url, **LOCAL, **more)


def of_litellm_responses(function: str, model: str, url: str, **more: Any) -> Any:
    return getattr(litellm, function)(model=model, input="?", api_base=url, **LOCAL, **more)


def of_langchain(url: str, **more: Any) -> Any:
    return kept(
        langchain_openai.ChatOpenAI(model="gpt-5", base_url=url, stream_usage=True, **LOCAL, **more)
    )


def of_amazon(answer: Answer) -> AbstractContextManager[str]:
    headers = {**answer.headers, "x-amzn-RequestId": of_aws.REQUEST}
    return serving(answer._replace(headers=headers))


OPENAIS_DECISION = {
    "answers": [],
    "model": "gpt-5",
    "usage": {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 512, "cache_write_tokens": 0},
        "output_tokens": 24,
        "output_tokens_details": {"reasoning_tokens": 16},
        "total_tokens": 1024,
    },
}
COUNTED = {"x-amzn-bedrock-input-token-count": "4", "x-amzn-bedrock-output-token-count": "265"}
RESPONSE = partial(replaying, "openai_response.json")
RESPONSE_EVENTS = partial(replaying, "openai_response.sse")
EMBEDDINGS = partial(compatible, embeddings())
DECISION = partial(serving, as_json(OPENAIS_DECISION))
MESSAGE = partial(replaying, "anthropic_message.json")
MESSAGE_EVENTS = partial(replaying, "anthropic_message.sse")
CONTENT = partial(replaying, "google_generate.json")
CONTENT_CHUNKS = partial(replaying, "google_generate.sse")
CONTENT_VECTORS = partial(replaying, "google_embed.json")
INTERACTION = partial(serving, as_json(of_googles.INTERACTION))
INTERACTION_EVENTS = partial(serving, as_sse(of_googles.EVENTS))
MISTRALS = partial(serving, as_json(of_mistrals.CHAT))
MISTRALS_CHUNKS = partial(serving, of_mistrals.STREAM)
MISTRALS_VECTORS = partial(serving, as_json(of_mistrals.EMBEDDINGS))
COHERES = partial(serving, as_json(of_coheres.CHAT))
COHERES_EVENTS = partial(serving, as_sse(of_coheres.EVENTS, named=True))
OLLAMAS = partial(serving, as_json(of_ollamas.CHAT))
OLLAMAS_CHUNKS = partial(serving, as_ndjson(of_ollamas.CHUNKS))
CONVERSE = partial(of_amazon, as_json(of_aws.CONVERSE))
CONVERSE_EVENTS = partial(of_amazon, as_event_stream([*of_aws.BEGINNING, of_aws.METADATA]))
INVOKED = partial(of_amazon, as_json({"content": []}, headers=COUNTED))
INVOKED_EVENTS = partial(of_amazon, as_event_stream(of_aws.INVOKED))
GROQS = partial(compatible, chat(service_tier="on_demand"))
GROQS_CHUNKS = partial(compatible, stream=groq_chunks())
QWENS = partial(serving, as_json(of_alibaba.CHAT))
QWENS_VECTORS = partial(
    serving,
    as_json(
        {
            "output": {"embeddings": [{"index": 0, "embedding": [0.5], "type": "text"}]},
            "usage": {"input_tokens": 12, "image_tokens": 0},
            "request_id": of_alibaba.REQUEST,
        }
    ),
)
OLLAMAS_ANSWERS = partial(
    serving,
    as_json({"model": "m", "answers": {}, "usage": {"input_tokens": 40, "output_tokens": 2}}),
)
QWENS_EVENTS = partial(serving, of_alibaba.RUNNING_TOTALS)


def both(
    name: str,
    serving: Callable[[], AbstractContextManager[str]],
    tokens: int,
    ask: Callable[[str], Any],
    ask_async: Callable[[str], Any],
    read: Callable[[Any], Any] | None = None,
    read_async: Callable[[Any], Any] | None = None,
    *,
    has_id: bool = True,
) -> list[Call]:
    """Return the call of the synchronous client, and that of the asynchronous one."""
    return [
        Call(name, serving, tokens, ask, read, False, has_id),
        Call(f"{name} async", serving, tokens, ask_async, read_async, True, has_id),
    ]


OPENAI = [
    *both(
        "openai decision",
        DECISION,
        1024,
        lambda url: of_openai(url).decisions.create(**DECIDE),
        lambda url: of_openai_async(url).decisions.create(**DECIDE),
        has_id=False,
    ),
    *both(
        "openai beta response",
        RESPONSE,
        2500,
        lambda url: of_openai(url).beta.responses.create(**INPUT),
        lambda url: of_openai_async(url).beta.responses.create(**INPUT),
    ),
    *both(
        "openai beta response stream",
        RESPONSE_EVENTS,
        2500,
        lambda url: of_openai(url).beta.responses.create(**INPUT, **STREAM),
        lambda url: of_openai_async(url).beta.responses.create(**INPUT, **STREAM),
        drained,
        drained_async,
    ),
    *both(
        "openai chat",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.create(**CHAT),
        lambda url: of_openai_async(url).chat.completions.create(**CHAT),
    ),
    *both(
        "openai chat stream",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.create(**CHAT, **WITH_USAGE),
        lambda url: of_openai_async(url).chat.completions.create(**CHAT, **WITH_USAGE),
        drained,
        drained_async,
    ),
    *both(
        "openai chat stream manager",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.stream(**CHAT, **INCLUDED),
        lambda url: of_openai_async(url).chat.completions.stream(**CHAT, **INCLUDED),
        entered,
        entered_async,
    ),
    *both(
        "openai raw",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.with_raw_response.create(**CHAT),
        lambda url: of_openai_async(url).chat.completions.with_raw_response.create(**CHAT),
    ),
    *both(
        "openai raw stream",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.with_raw_response.create(**CHAT, **WITH_USAGE),
        lambda url: of_openai_async(url).chat.completions.with_raw_response.create(
            **CHAT, **WITH_USAGE
        ),
        parsed,
        parsed_async,
    ),
    *both(
        "openai streaming response",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.with_streaming_response.create(**CHAT),
        lambda url: of_openai_async(url).chat.completions.with_streaming_response.create(**CHAT),
        entered_and_parsed,
        entered_and_parsed_async,
    ),
    *both(
        "openai streaming response stream",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.with_streaming_response.create(
            **CHAT, **WITH_USAGE
        ),
        lambda url: of_openai_async(url).chat.completions.with_streaming_response.create(
            **CHAT, **WITH_USAGE
        ),
        entered_and_parsed,
        entered_and_parsed_async,
    ),
    *both(
        "openai streaming response lines",
        compatible,
        1500,
        lambda url: of_openai(url).chat.completions.with_streaming_response.create(
            **CHAT, **WITH_USAGE
        ),
        lambda url: of_openai_async(url).chat.completions.with_streaming_response.create(
            **CHAT, **WITH_USAGE
        ),
        entered_by_lines,
        entered_by_lines_async,
    ),
    *both(
        "openai responses",
        RESPONSE,
        2500,
        lambda url: of_openai(url).responses.create(**INPUT),
        lambda url: of_openai_async(url).responses.create(**INPUT),
    ),
    *both(
        "openai responses stream",
        RESPONSE_EVENTS,
        2500,
        lambda url: of_openai(url).responses.create(**INPUT, **STREAM),
        lambda url: of_openai_async(url).responses.create(**INPUT, **STREAM),
        drained,
        drained_async,
    ),
    *both(
        "openai embeddings",
        EMBEDDINGS,
        8,
        lambda url: of_openai(url).embeddings.create(**INPUT),
        lambda url: of_openai_async(url).embeddings.create(**INPUT),
        has_id=False,
    ),
]
ANTHROPIC = [
    *both(
        "anthropic",
        MESSAGE,
        130_223,
        lambda url: of_anthropic(url).create(**CLAUDE),
        lambda url: of_anthropic_async(url).create(**CLAUDE),
    ),
    *both(
        "anthropic stream",
        MESSAGE_EVENTS,
        140,
        lambda url: of_anthropic(url).create(**CLAUDE, **STREAM),
        lambda url: of_anthropic_async(url).create(**CLAUDE, **STREAM),
        drained,
        drained_async,
    ),
    *both(
        "anthropic raw stream",
        MESSAGE_EVENTS,
        140,
        lambda url: of_anthropic(url).with_raw_response.create(**CLAUDE, **STREAM),
        lambda url: of_anthropic_async(url).with_raw_response.create(**CLAUDE, **STREAM),
        parsed,
        parsed_async,
    ),
    *both(
        "anthropic stream manager",
        MESSAGE_EVENTS,
        140,
        lambda url: of_anthropic(url).stream(**CLAUDE),
        lambda url: of_anthropic_async(url).stream(**CLAUDE),
        entered,
        entered_async,
    ),
]
GOOGLE = [
    *both(
        "google-genai",
        CONTENT,
        1200,
        lambda url: of_google(url).models.generate_content(**GEMINI),
        lambda url: of_google(url).aio.models.generate_content(**GEMINI),
    ),
    *both(
        "google-genai stream",
        CONTENT_CHUNKS,
        1100,
        lambda url: of_google(url).models.generate_content_stream(**GEMINI),
        lambda url: of_google(url).aio.models.generate_content_stream(**GEMINI),
        drained,
        drained_async,
    ),
    *both(
        "google-genai embeddings",
        CONTENT_VECTORS,
        12,
        lambda url: of_google(url).models.embed_content(**GEMINI),
        lambda url: of_google(url).aio.models.embed_content(**GEMINI),
        has_id=False,
    ),
    *both(
        "google-genai interaction",
        INTERACTION,
        1200,
        lambda url: of_google(url).interactions.create(**of_googles.ASK),
        lambda url: of_google(url).aio.interactions.create(**of_googles.ASK),
    ),
    *both(
        "google-genai interaction stream",
        INTERACTION_EVENTS,
        1200,
        lambda url: of_google(url).interactions.create(**of_googles.ASK, stream=True),
        lambda url: of_google(url).aio.interactions.create(**of_googles.ASK, stream=True),
        drained,
        drained_async,
    ),
]
MISTRAL = [
    *both(
        "mistralai",
        MISTRALS,
        1500,
        lambda url: of_mistral(url).chat.complete(**MAGISTRAL),
        lambda url: of_mistral(url).chat.complete_async(**MAGISTRAL),
    ),
    *both(
        "mistralai stream",
        MISTRALS_CHUNKS,
        1500,
        lambda url: of_mistral(url).chat.stream(**MAGISTRAL),
        lambda url: of_mistral(url).chat.stream_async(**MAGISTRAL),
        drained,
        drained_async,
    ),
    *both(
        "mistralai embeddings",
        MISTRALS_VECTORS,
        15,
        lambda url: of_mistral(url).embeddings.create(model="mistral-embed", inputs=["a"]),
        lambda url: of_mistral(url).embeddings.create_async(model="mistral-embed", inputs=["a"]),
    ),
]
COHERE = [
    *both(
        "cohere",
        COHERES,
        530,
        lambda url: of_cohere(url).chat(**COMMAND),
        lambda url: of_cohere_async(url).chat(**COMMAND),
    ),
    *both(
        "cohere stream",
        COHERES_EVENTS,
        530,
        lambda url: of_cohere(url).chat_stream(**COMMAND),
        lambda url: of_cohere_async(url).chat_stream(**COMMAND),
        drained,
        drained_async,
    ),
]
OLLAMA = [
    *both("ollama", OLLAMAS, 308, of_ollama, of_ollama_async, has_id=False),
    *both(
        "ollama systemone",
        OLLAMAS_ANSWERS,
        42,
        lambda url: kept(ollama.Client(url)).systemone("m", "?", {}),
        lambda url: kept(ollama.AsyncClient(url)).systemone("m", "?", {}),
        has_id=False,
    ),
    *both(
        "ollama stream",
        OLLAMAS_CHUNKS,
        308,
        lambda url: of_ollama(url, **STREAM),
        lambda url: of_ollama_async(url, **STREAM),
        drained,
        drained_async,
        has_id=False,
    ),
]
BOTO3 = [
    Call("boto3 converse", CONVERSE, 3069, lambda url: of_bedrock(url).converse(**of_aws.ASK)),
    Call(
        "boto3 converse stream",
        CONVERSE_EVENTS,
        3069,
        lambda url: of_bedrock(url).converse_stream(**of_aws.ASK),
        held("stream"),
    ),
    Call("boto3 invoke", INVOKED, 269, lambda url: of_bedrock(url).invoke_model(**of_aws.INVOKE)),
    Call(
        "boto3 invoke stream",
        INVOKED_EVENTS,
        3069,
        lambda url: of_bedrock(url).invoke_model_with_response_stream(**of_aws.INVOKE),
        held("body"),
    ),
]
GROQ = [
    *both(
        "groq",
        compatible,
        1500,
        lambda url: of_groq(url).create(**CHAT),
        lambda url: of_groq_async(url).create(**CHAT),
    ),
    *both(
        "groq stream",
        GROQS_CHUNKS,
        1500,
        lambda url: of_groq(url).create(**CHAT, **STREAM),
        lambda url: of_groq_async(url).create(**CHAT, **STREAM),
        drained,
        drained_async,
    ),
    *both(
        "groq raw stream",
        GROQS_CHUNKS,
        1500,
        lambda url: of_groq(url).with_raw_response.create(**CHAT, **STREAM),
        lambda url: of_groq_async(url).with_raw_response.create(**CHAT, **STREAM),
        parsed,
        parsed_async,
    ),
]
DASHSCOPE = [
    *both(
        "dashscope",
        QWENS,
        1500,
        lambda url: of_dashscope(dashscope.Generation, url),
        lambda url: of_dashscope(dashscope.AioGeneration, url),
    ),
    *both(
        "dashscope stream",
        QWENS_EVENTS,
        1500,
        lambda url: of_dashscope(dashscope.Generation, url, **INCREMENTAL),
        lambda url: of_dashscope(dashscope.AioGeneration, url, **INCREMENTAL),
        drained,
        drained_async,
    ),
    *both(
        "dashscope multimodal embeddings",
        QWENS_VECTORS,
        12,
        lambda url: of_dashscope_vectors(dashscope.MultiModalEmbedding, url),
        lambda url: of_dashscope_vectors(dashscope.AioMultiModalEmbedding, url),
    ),
]
LITELLM = [
    *both(
        "litellm embeddings",
        EMBEDDINGS,
        8,
        partial(of_litellm_responses, "embedding", "openai/text-embedding-3-small"),
        partial(of_litellm_responses, "aembedding", "openai/text-embedding-3-small"),
        has_id=False,
    ),
    *(
        call
        for model, serving_whole, serving_stream, tokens, streamed_tokens in (
            ("openai/gpt-5", RESPONSE, RESPONSE_EVENTS, 2500, 2500),
            ("anthropic/claude-sonnet-5", MESSAGE, MESSAGE_EVENTS, 130_223, 140),
        )
        for call in [
            *both(
                f"litellm responses {model}",
                serving_whole,
                tokens,
                partial(of_litellm_responses, "responses", model),
                partial(of_litellm_responses, "aresponses", model),
            ),
            *both(
                f"litellm responses {model} stream",
                serving_stream,
                streamed_tokens,
                partial(of_litellm_responses, "responses", model, **STREAM),
                partial(of_litellm_responses, "aresponses", model, **STREAM),
                drained,
                drained_async,
            ),
        ]
    ),
    *(
        call
        for model, serving_whole, serving_stream, tokens, streamed_tokens in (
            ("openai/gpt-5", compatible, compatible, 1500, 1500),
            ("anthropic/claude-sonnet-5", MESSAGE, MESSAGE_EVENTS, 130_223, 140),
            # the library does not keep what an earlier chunk alone says
            ("gemini/gemini-2.5-pro", CONTENT, CONTENT_CHUNKS, 1200, 940),
            ("mistral/magistral-medium", MISTRALS, MISTRALS_CHUNKS, 1500, 1500),
            ("ollama_chat/qwen3:8b", OLLAMAS, OLLAMAS_CHUNKS, 308, 308),
            ("groq/llama-5", GROQS, compatible, 1500, 1500),
            ("dashscope/qwen-plus", compatible, compatible, 1500, 1500),
        )
        for call in [
            *both(
                f"litellm {model}",
                serving_whole,
                tokens,
                partial(of_litellm, "completion", model),
                partial(of_litellm, "acompletion", model),
            ),
            *both(
                f"litellm {model} stream",
                serving_stream,
                streamed_tokens,
                partial(of_litellm, "completion", model, **WITH_USAGE),
                partial(of_litellm, "acompletion", model, **WITH_USAGE),
                drained,
                drained_async,
            ),
        ]
    ),
]
LANGCHAIN = [
    *both(
        "langchain responses stream",
        RESPONSE_EVENTS,
        2500,
        lambda url: of_langchain(url, use_responses_api=True).stream("?"),
        lambda url: of_langchain(url, use_responses_api=True).astream("?"),
        drained,
        drained_async,
    ),
    *both(
        "langchain",
        compatible,
        1500,
        lambda url: of_langchain(url).invoke("?"),
        lambda url: of_langchain(url).ainvoke("?"),
    ),
    *both(
        "langchain stream",
        compatible,
        1500,
        lambda url: of_langchain(url).stream("?"),
        lambda url: of_langchain(url).astream("?"),
        drained,
        drained_async,
    ),
]
OPENAI_CHAT = next(each for each in OPENAI if each.name == "openai chat")
CALLS = [
    *OPENAI,
    *ANTHROPIC,
    *GOOGLE,
    *MISTRAL,
    *COHERE,
    *OLLAMA,
    *BOTO3,
    *GROQ,
    *DASHSCOPE,
    *LANGCHAIN,
    *LITELLM,
]
