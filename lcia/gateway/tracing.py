"""Traces by OpenTelemetry, set up by its standard environment variables; none are made unless an exporter is named.

Spans carry the attributes of the conventions for generative AI, and never a prompt or an answer.
DecisionSource: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracer_of(environment: Mapping[str, str], exporter: SpanExporter | None = None) -> Tracer:
    """Tracer of this process; it does nothing unless the environment names an endpoint (or `exporter` is given)."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or (exporter is None and not any(environment.get(name) for name in ENDPOINTS)):
        return trace.NoOpTracer()
    name = environment.get("OTEL_SERVICE_NAME", "lcia-gateway")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    return provider.get_tracer("lcia.gateway")


def begin(tracer: Tracer, kind: str, model: str, headers: Mapping[str, str]) -> Span:
    """Span of one request, under the trace that the caller's headers name; whoever asks for it ends it."""
    attributes = {"gen_ai.operation.name": kind, "gen_ai.request.model": model, "gen_ai.provider.name": "lcia"}
    context = extract(dict(headers))
    return tracer.start_span(f"{kind} {model}", context=context, kind=SpanKind.SERVER, attributes=attributes)


def describe(span: Span, facts: Mapping[str, Any], usage: Mapping[str, int]) -> None:
    """Add what made an answer."""
    span.set_attributes(
        {
            "gen_ai.response.id": str(facts["answer"]),
            "gen_ai.usage.input_tokens": usage["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["completion_tokens"],
            "lcia.version": str(facts["version"]),
            "lcia.group": str(facts["group"]),
            "lcia.route": str(facts["route"]),
            "lcia.similarity": float(facts["similarity"]),
        }
    )
