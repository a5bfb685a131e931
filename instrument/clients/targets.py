"""What is tracked of each SDK: the methods that have a provider work, wherever they are defined.

To look up what is finished, or still running, is no new work: those methods are left out, though
they give its usage once more. So are those that give none, and those that OpenAI has withdrawn.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SDKS", "Sdk", "Target"]


class Target(NamedTuple):
    """A function of a module, or a method of a class in it: `Completions.create`.

    `operation` is what its calls are recorded as. `model` is the keyword that names the model.
    """

    module: str
    path: str
    operation: str
    model: str = "model"


class Sdk(NamedTuple):
    """An SDK by the name of its distribution."""

    service: str
    targets: tuple[Target, ...]


def _methods(module: str, operation: str, *paths: str, model: str = "model") -> tuple[Target, ...]:
    """Name methods of a module; their operation is `operation` and the method's own name."""
    return tuple(
        Target(module, path, f"{operation}.{path.rpartition('.')[2]}", model) for path in paths
    )


def _both(*paths: str) -> tuple[str, ...]:
    """Name the methods of the synchronous and of the asynchronous class."""
    return tuple(f"{prefix}{path}" for path in paths for prefix in ("", "Async"))


_OPENAI = (
    *_methods(
        "openai.resources.chat.completions.completions",
        "chat.completions",
        *_both("Completions.create", "Completions.parse"),
    ),
    *_methods(
        "openai.resources.responses.responses",
        "responses",
        *_both("Responses.create", "Responses.parse", "Responses.compact"),
    ),
    *_methods(
        "openai.resources.beta.responses.responses",
        "beta.responses",
        *_both("Responses.create", "Responses.compact"),
    ),
    *_methods("openai.resources.completions", "completions", *_both("Completions.create")),
    *_methods("openai.resources.decisions", "decisions", *_both("Decisions.create")),
    *_methods("openai.resources.embeddings", "embeddings", *_both("Embeddings.create")),
    *_methods("openai.resources.images", "images", *_both("Images.generate", "Images.edit")),
    *_methods(
        "openai.resources.audio.transcriptions",
        "audio.transcriptions",
        *_both("Transcriptions.create"),
    ),
)
_MESSAGES = _both("Messages.create", "Messages.parse", "Messages.stream")
_ANTHROPIC = (
    *_methods("anthropic.resources.messages.messages", "messages", *_MESSAGES),
    *_methods(
        "anthropic.resources.messages.batches", "messages.batches", *_both("Batches.results")
    ),
    *_methods("anthropic.resources.beta.messages.messages", "beta.messages", *_MESSAGES),
    *_methods(
        "anthropic.resources.beta.messages.batches",
        "beta.messages.batches",
        *_both("Batches.results"),
    ),
)
_GOOGLE = (
    *_methods(
        "google.genai.models",
        "models",
        *_both("Models.generate_content", "Models.generate_content_stream", "Models.embed_content"),
    ),
    *_methods(
        "google.genai._gaos.google_genai",
        "interactions",
        *_both("GeminiNextGenInteractions.create"),
    ),
    *_methods(
        "google.genai._gaos.google_genai", "decisions", *_both("GeminiNextGenDecisions.create")
    ),
)
_COMPLETE = ("complete", "complete_async", "stream", "stream_async")
_CONVERSE = tuple(
    f"{verb}{kind}"
    for verb in ("start", "append", "restart")
    for kind in ("", "_async", "_stream", "_stream_async")
)
_MISTRAL = (
    *_methods(
        "mistralai.client.chat",
        "chat",
        *(f"Chat.{name}" for name in _COMPLETE),
    ),
    *_methods(
        "mistralai.client.agents",
        "agents",
        *(f"Agents.{name}" for name in _COMPLETE),
    ),
    *_methods(
        "mistralai.client.conversations",
        "conversations",
        *(f"Conversations.{name}" for name in _CONVERSE),
    ),
    *_methods(
        "mistralai.client.embeddings", "embeddings", "Embeddings.create", "Embeddings.create_async"
    ),
    *_methods(
        "mistralai.client.fim",
        "fim",
        *(f"Fim.{name}" for name in _COMPLETE),
    ),
    *_methods(
        "mistralai.client.responses", "responses", "Responses.create", "Responses.create_async"
    ),
    *_methods(
        "mistralai.client.transcriptions",
        "transcriptions",
        *(f"Transcriptions.{name}" for name in _COMPLETE),
    ),
)
# whole responses pass through what `with_raw_response` gives, too; streams there have no end
_COHERE = tuple(
    Target(module, f"{prefix}{name}", name.partition(".")[2])
    for module, names in (
        ("cohere.v2.raw_client", ("RawV2Client.chat", "RawV2Client.embed", "RawV2Client.rerank")),
        ("cohere.v2.client", ("V2Client.chat_stream",)),
        (
            "cohere.raw_base_client",
            ("RawBaseCohere.chat", "RawBaseCohere.embed", "RawBaseCohere.rerank"),
        ),
        ("cohere.base_client", ("BaseCohere.chat_stream",)),
    )
    for name in names
    for prefix in ("", "Async")
)
_OLLAMA = tuple(
    Target(module, f"{prefix}{name}", name)
    for name in ("chat", "generate", "embed", "embeddings", "systemone")
    for module, prefix in (
        ("ollama._client", "Client."),
        ("ollama._client", "AsyncClient."),
        ("ollama", ""),
    )
)
_BEDROCK = (Target("botocore.client", "BaseClient._make_api_call", "converse", "modelId"),)
# the package's own names: what the functions call of each other stands in its modules
_LITELLM = (
    *(
        Target("litellm", f"{prefix}{name}", name)
        for name in (
            "completion",
            "text_completion",
            "embedding",
            "responses",
            "rerank",
            "image_generation",
            "transcription",
        )
        for prefix in ("", "a")
    ),
    Target("litellm", "anthropic_messages", "anthropic_messages"),
)
_GROQ = (
    *_methods("groq.resources.chat.completions", "chat.completions", *_both("Completions.create")),
    *_methods("groq.resources.embeddings", "embeddings", *_both("Embeddings.create")),
    *_methods(
        "groq.resources.audio.transcriptions",
        "audio.transcriptions",
        *_both("Transcriptions.create"),
    ),
)
_DASHSCOPE = (
    *_methods("dashscope.aigc.generation", "generation", "Generation.call", "AioGeneration.call"),
    *_methods(
        "dashscope.aigc.multimodal_conversation",
        "multimodal_conversation",
        "MultiModalConversation.call",
        "AioMultiModalConversation.call",
    ),
    *_methods("dashscope.embeddings.text_embedding", "text_embedding", "TextEmbedding.call"),
    *_methods(
        "dashscope.embeddings.multimodal_embedding",
        "multimodal_embedding",
        "MultiModalEmbedding.call",
        "AioMultiModalEmbedding.call",
    ),
    *_methods(
        "dashscope.rerank.text_rerank", "text_rerank", "TextReRank.call", "AioTextReRank.call"
    ),
    *_methods("dashscope.app.application", "application", "Application.call"),
)

SDKS: dict[str, Sdk] = {
    "openai": Sdk("openai", _OPENAI),
    "anthropic": Sdk("anthropic", _ANTHROPIC),
    "google-genai": Sdk("google", _GOOGLE),
    "mistralai": Sdk("mistral", _MISTRAL),
    "cohere": Sdk("cohere", _COHERE),
    "ollama": Sdk("ollama", _OLLAMA),
    "boto3": Sdk("bedrock", _BEDROCK),
    "litellm": Sdk("litellm", _LITELLM),
    "groq": Sdk("groq", _GROQ),
    "dashscope": Sdk("dashscope", _DASHSCOPE),
}
