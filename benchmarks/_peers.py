"""The decorators of other libraries, set up as their documentation says and kept offline."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _measure import version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanProcessor

Decorate = Callable[[Any], Any]

# What is printed -> the distribution that must be installed.
DISTRIBUTIONS = {
    "OpenTelemetry": "opentelemetry-sdk",
    "Logfire": "logfire",
    "Langfuse": "langfuse",
}


def installed() -> list[str]:
    return [name for name, distribution in DISTRIBUTIONS.items() if version(distribution)]


def set_up(peer: str, exporter: SpanExporter, processor: SpanProcessor) -> Decorate:
    """Configure `peer` for this process, and return its decorator.

    Spans go to `processor`, except Langfuse's, which brings its own and takes `exporter`.
    """
    if peer == "OpenTelemetry":
        return _opentelemetry(processor)
    if peer == "Logfire":
        return _logfire(processor)
    return _langfuse(exporter)


def _opentelemetry(processor: SpanProcessor) -> Decorate:
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")

    def decorate(target: Any) -> Any:
        name = getattr(target, "__qualname__", type(target).__name__)
        return tracer.start_as_current_span(name)(target)

    return decorate


def _logfire(processor: SpanProcessor) -> Decorate:
    import logfire

    logfire.configure(
        send_to_logfire=False, console=False, metrics=False, additional_span_processors=[processor]
    )

    def decorate(target: Any) -> Any:
        with warnings.catch_warnings():  # it advises against generators, which is what is measured
            warnings.filterwarnings("ignore", message="@logfire.instrument should only be used")
            return logfire.instrument()(target)

    return decorate


def _langfuse(exporter: SpanExporter) -> Decorate:
    from langfuse import Langfuse, observe
    from opentelemetry.sdk.trace import TracerProvider

    Langfuse(
        public_key="pk-benchmark",
        secret_key="sk-benchmark",
        base_url="http://127.0.0.1:9",
        span_exporter=exporter,
        tracer_provider=TracerProvider(),  # not the global one, which may be another peer's
    )
    return lambda target: observe()(target)


def flush(peer: str, processor: SpanProcessor) -> None:
    """Bring every finished span to the exporter."""
    if peer == "Langfuse":
        from langfuse import get_client

        get_client().flush()
    else:
        processor.force_flush()
