from html.parser import HTMLParser

import pytest

from components.evaluation.matrix import AccuracyMatrix
from components.evaluation.reports import Flip, beta_png, curve_png, evaluation_html, gate_html, heat_map_png
from components.promotion.gate import GateEvidence, NewTask, PriorTask, decide_gate
from components.settings import GateSettings

HOSTILE = "<script>alert(1)</script>\"'&$x_1$"


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def assert_self_contained(html: str) -> None:
    parser = _Tags()
    parser.feed(html)
    for tag, attributes in parser.seen:
        assert tag not in {"script", "link", "iframe", "object", "a"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "href"
            assert name != "src" or (value or "").startswith("data:image/png;base64,")
    assert "http://" not in html
    assert "https://" not in html


@pytest.fixture(scope="module")
def matrix() -> AccuracyMatrix:
    hits = [1.0] * 30 + [0.0] * 10
    fewer = [1.0] * 27 + [0.0] * 13
    return AccuracyMatrix.from_scores(
        ["movie_sentiment", HOSTILE, "kept_nothing"], [[hits], [fewer, hits], [fewer, hits, []]]
    )


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 3000


def test_pictures_are_pngs_and_repeatable(matrix):
    assert is_png(heat_map_png(matrix))
    assert heat_map_png(matrix) == heat_map_png(matrix)
    points = [("theta*", 0.7, 0.01), ("live", 0.8, 0.2), ("0.25", 0.7, 0.01), (HOSTILE, 0.75, 0.1)]
    assert is_png(curve_png(points, "theta*", margin=0.02))
    assert is_png(curve_png(points[:1], "theta*"))
    assert is_png(beta_png([(i, 0.9, 0.95, 0.99) for i in range(10)]))


def test_evaluation_page(matrix):
    flips = [
        Flip("movie_sentiment", "0" * 64, HOSTILE, "positive", "positive", "negative", 1.0, 0.0),
        Flip("movie_sentiment", "1" * 64, "A fine film.", "positive", "negative", "positive", 0.0, 1.0),
    ]
    html = evaluation_html(
        matrix, groups={"movie_sentiment": "g1"}, flips=flips, title=HOSTILE, notes=[HOSTILE],
        pictures=[("Stability and plasticity", curve_png([("live", 0.8, 0.2)], "live"))],
    )  # fmt: skip
    assert_self_contained(html)
    assert "not measurable" in html
    assert "1 lost, 1 won" in html
    assert "BWT" in html
    assert_self_contained(evaluation_html(AccuracyMatrix((), ())))


def test_gate_page():
    hits = (1.0,) * 150 + (0.0,) * 50
    evidence = GateEvidence(
        prior=(PriorTask(HOSTILE, "1" * 64, "g1", hits, hits, hits[::-1], changed=True),),
        new=NewTask("new", (0.0,) * 200, hits, hits[:100], hits[:100]),
        validation="warn", drift="new", routing_share=1.0, costs=((HOSTILE, 1.5),),
    )  # fmt: skip
    html = gate_html(decide_gate(evidence, GateSettings(enforce=False)).to_json())
    assert_self_contained(html)
    assert "Not enforced" in html
    assert "lifetime" in html
