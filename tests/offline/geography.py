"""A program that asks a model, in every way in which programs do."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import requests

from instrument import tracked

URL = "https://api.openai.com/v1/chat/completions"


def _question(country: str) -> dict[str, Any]:
    content = f"What is the capital of {country}?"
    return {"model": "gpt-5", "messages": [{"role": "user", "content": content}]}


@tracked(service="openai")
def with_sdk(country: str) -> str | None:
    client = openai.OpenAI(api_key="none", max_retries=0)
    return ask(client, country).choices[0].message.content


@tracked(service="openai", operation="chat")
def ask(client: openai.OpenAI, country: str) -> Any:
    return client.chat.completions.create(**_question(country))


@tracked(service="openai", operation="chat")
def ask_in_pieces(country: str) -> Any:
    client = openai.OpenAI(api_key="none", max_retries=0)
    options = {"include_usage": True}
    return client.chat.completions.create(**_question(country), stream=True, stream_options=options)


@tracked(service="openai", operation="chat")
def with_requests(country: str) -> requests.Response:
    return requests.post(URL, json=_question(country), timeout=10)


@tracked(service="openai", operation="chat")
def with_httpx(country: str) -> httpx.Response:
    return httpx.post(URL, json=_question(country))


@tracked(service="openai", operation="chat")
async def with_async_httpx(country: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(URL, json=_question(country))
