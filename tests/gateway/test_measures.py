"""Numbers of the gateway: what Prometheus reads, and what the service hears."""

from prometheus_client.parser import text_string_to_metric_families

from lcia.gateway.measures import Meter


def test_the_page_and_the_report_have_the_same_counts():
    measures = Meter()
    for seconds in (0.1, 0.2, 0.3, 4.0):
        measures.count_answer("g1", "exact", seconds, 0.05, 40, 3)
    measures.count_answer(None, "none", 0.5, None, 10, 1)
    measures.count_failure("g1", "error")
    measures.count_failure(None, "gone")
    page = measures.page(running=2, ready=True, version=3, target=4).decode()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["lcia_gateway_requests_total", "g1", "ok"] == 4
    assert samples["lcia_gateway_requests_total", "error", "g1"] == 1
    assert samples["lcia_gateway_tokens_total", "answer"] == 13
    assert samples["lcia_gateway_running",] == 2
    assert (samples["lcia_gateway_version",], samples["lcia_gateway_decided_version",]) == (3, 4)
    assert "_created" not in page
    report = measures.report()
    assert report["traffic"] == {"g1": {"requests": 5, "errors": 1}, "none": {"requests": 2, "errors": 0}}
    assert report["latency"] == {"p50": 0.3, "p99": 4.0, "first_token_p50": 0.05}
    assert Meter().report() == {"traffic": {}, "latency": {"p50": None, "p99": None, "first_token_p50": None}}
