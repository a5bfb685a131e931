"""The sample responses as the objects of the providers' SDKs; each raises `ImportError` without."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

from usage_samples import response

__all__ = ["OBJECTS"]


def openai_chat() -> Any:
    from openai.types.chat import ChatCompletion

    return ChatCompletion.model_validate(response("openai_chat"))


def openai_response() -> Any:
    from openai.types.responses import Response

    return Response.model_validate(response("openai_response"))


def openai_embeddings() -> Any:
    from openai.types import CreateEmbeddingResponse

    return CreateEmbeddingResponse.model_validate(response("openai_embeddings"))


def anthropic_message() -> Any:
    from anthropic.types import Message

    return Message.model_validate(response("anthropic_message"))


def google_generated() -> Any:
    from google.genai.types import GenerateContentResponse

    return GenerateContentResponse.model_validate(response("google_generate"))


def google_embedded() -> Any:
    from google.genai.types import EmbedContentResponse

    return EmbedContentResponse.model_validate(response("google_embed"))


def groq_chat() -> Any:
    from groq.types.chat import ChatCompletion

    usage = {
        **response("openai_chat")["usage"],
        "queue_time": 0.02,
        "prompt_tokens_details": {"cached_tokens": 1024},
        "completion_tokens_details": {"reasoning_tokens": 256},
    }
    told = {"usage": usage, "x_groq": {"id": "req_1"}, "service_tier": "on_demand"}
    return ChatCompletion.model_validate({**response("openai_chat"), **told})


def litellm_chat() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from litellm import ModelResponse

        found = ModelResponse(**response("openai_chat"))
    found._hidden_params = {"custom_llm_provider": "openai", "response_cost": 0.01}
    return found


def mistral_chat() -> Any:
    from mistralai.client.models import ChatCompletionResponse

    return ChatCompletionResponse.model_validate(response("openai_chat"))


def cohere_chat() -> Any:
    from cohere import V2ChatResponse

    return V2ChatResponse.model_validate(response("cohere_chat"))


def ollama_chat() -> Any:
    from ollama import ChatResponse

    return ChatResponse.model_validate(response("ollama_chat"))


def dashscope_generation() -> Any:
    from dashscope.api_entities.dashscope_response import DashScopeAPIResponse, GenerationResponse

    told = {**response("dashscope_generation"), "status_code": 200, "code": "", "message": ""}
    return GenerationResponse.from_api_response(DashScopeAPIResponse(**told))


def langchain_message() -> Any:
    from langchain_core.messages import AIMessage

    usage: Any = {
        "input_tokens": 350,
        "output_tokens": 240,
        "total_tokens": 590,
        "input_token_details": {"cache_creation": 200, "cache_read": 100},
        "output_token_details": {"reasoning": 150},
    }
    told = {"model_name": "claude-sonnet-5", "model_provider": "anthropic", "id": "msg_1"}
    return AIMessage("Lisbon.", id="run--1", usage_metadata=usage, response_metadata=told)


def huggingface_chat() -> Any:
    from huggingface_hub import ChatCompletionOutput

    return ChatCompletionOutput.parse_obj_as_instance(response("openai_chat"))


def xai_chat() -> Any:
    from xai_sdk.chat import Response
    from xai_sdk.proto import chat_pb2, usage_pb2

    usage = usage_pb2.SamplingUsage(
        prompt_tokens=1_200,
        completion_tokens=44,
        cached_prompt_text_tokens=1_024,
        reasoning_tokens=256,
        total_tokens=1_500,
    )
    outputs = [chat_pb2.CompletionOutput(index=0)]
    whole = chat_pb2.GetChatCompletionResponse(id="x", model="grok-4", usage=usage, outputs=outputs)
    return Response(whole, 0)


OBJECTS: dict[str, Callable[[], Any]] = {
    "OpenAI chat": openai_chat,
    "OpenAI response": openai_response,
    "OpenAI embeddings": openai_embeddings,
    "Anthropic message": anthropic_message,
    "Gemini": google_generated,
    "Gemini embeddings": google_embedded,
    "Groq chat": groq_chat,
    "LiteLLM chat": litellm_chat,
    "Mistral chat": mistral_chat,
    "Cohere chat": cohere_chat,
    "Ollama chat": ollama_chat,
    "DashScope generation": dashscope_generation,
    "LangChain message": langchain_message,
    "Hugging Face chat": huggingface_chat,
    "xAI chat": xai_chat,
}
