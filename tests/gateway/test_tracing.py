"""Traces: only if an exporter is named, under the caller's trace, without a word of the request."""

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer

from lcia.gateway import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
FACTS = {"answer": "lcia-1", "version": 3, "group": "g1", "route": "near", "similarity": 0.5}


def test_nothing_is_traced_unless_the_environment_names_an_exporter():
    assert isinstance(tracing.tracer_of({}), NoOpTracer)
    assert isinstance(
        tracing.tracer_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}), NoOpTracer
    )


def test_a_span_goes_on_with_the_callers_trace_and_says_what_answered():
    exporter = InMemorySpanExporter()
    tracer = tracing.tracer_of({"OTEL_SERVICE_NAME": "mine"}, exporter)
    span = tracing.begin(tracer, "chat", "assistant", {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    tracing.describe(span, FACTS, {"prompt_tokens": 7, "completion_tokens": 2})
    span.end()
    tracer.span_processor.force_flush()
    (done,) = exporter.get_finished_spans()
    assert f"{done.context.trace_id:032x}" == TRACE
    assert done.resource.attributes["service.name"] == "mine"
    assert done.attributes["gen_ai.usage.output_tokens"] == 2
    assert (done.attributes["lcia.version"], done.attributes["lcia.group"]) == ("3", "g1")
