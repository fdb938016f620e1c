from html.parser import HTMLParser

import pytest

from components.evaluation.accuracy_matrix import AccuracyMatrix
from components.evaluation.pictures import curve_png
from components.evaluation.reports import Flip, FlipCount, evaluation_html, flips_html, gate_html
from components.evaluation.tuning_report import tuning_html, tuning_pictures
from components.gate.gate import decide_gate
from components.gate.inputs import GateEvidence, NewTask, PriorTask
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


def tuning_record(rule: str, steps: int, **values):
    """A record as `tune_task` stores it, of a history that holds two steps per entry."""
    names = ("beta_low", "beta_median", "beta_high", "distance")
    history = {name: [0.9] * (steps // 2) if rule != "none" else [] for name in names}
    return {
        "rule": rule, "rows": 240, "rehearsed_rows": 30, "recalled_rows": 0, "losses": [1.0] * steps,
        "old_losses": [None, 0.5] * (steps // 2), "history": history, "fallback_share": 0.1,
        "fallbacks": {}, "points": {"live": "", "ema": "", "mix-0.3": "", "mix-0.3-0.6": ""}, **values,
    }  # fmt: skip


def test_tuning_page():
    html = tuning_html(tuning_record("paper", 20, fallbacks={HOSTILE: 4, "layers.3.lora_A": 1}))
    assert_self_contained(html)
    assert "10.0 % of the updates fell back" in html
    assert "20.0 %" in html
    assert "share 0.3 in the lower half of the layers, 0.6 in the upper" in html
    assert "No other one did" in tuning_html(tuning_record("scale_free", 20, fallbacks={"layers.3.lora_A": 1}))
    assert "Fallbacks" not in tuning_html(tuning_record("curvature", 20))


def test_the_tuning_page_says_why_it_ended_and_which_rows_were_not_read():
    words = "stopped after step 150 of 225: no gain on validation since step 100"
    facts = {"stopping": {"words": words}, "length": {"remarks": [f"9400 of 10000 training rows {HOSTILE}"]}}
    html = tuning_html(tuning_record("curvature", 150, **facts))
    assert_self_contained(html)
    assert f"150 optimizer steps: {words}." in html
    assert "<b>9400 of 10000 training rows &lt;script&gt;" in html
    assert "optimizer steps." in tuning_html(tuning_record("curvature", 20))  # as records of earlier releases are


def test_a_plain_tuning_has_only_its_loss_to_show():
    plain = tuning_record("none", 6, old_losses=[], rehearsed_rows=0, points={"live": ""})
    assert list(tuning_pictures(plain)) == ["loss"]
    assert "There is nothing to choose" in tuning_html(plain)
    assert list(tuning_pictures(tuning_record("fixed", 6))) == ["loss", "beta", "distance"]


def test_evaluation_page(matrix):
    html = evaluation_html(
        matrix, groups={"movie_sentiment": "g1", HOSTILE: "g1", "kept_nothing": "g2"}, title=HOSTILE, notes=[HOSTILE],
        flips=[FlipCount("movie_sentiment", 40, 3, 1), FlipCount(HOSTILE, 40, 0, 0)], look="`lcia flips 3`",
        pictures=[("Stability and plasticity", curve_png([("live", 0.8, 0.2)], "live"))],
    )  # fmt: skip
    assert_self_contained(html)
    assert "not measurable" in html
    assert "3 lost and 1 won of 80 test rows" in html
    assert "0.075" in html, "negative flips, as a share"
    assert "tasks that share a group" in html
    assert "lcia flips 3" in html
    assert "BWT" in html
    assert_self_contained(evaluation_html(AccuracyMatrix((), ())))
    assert "tasks that share a group" not in evaluation_html(matrix, groups={HOSTILE: "g1"})


def test_only_the_page_of_flips_holds_test_rows():
    flips = [
        Flip("movie_sentiment", "1" * 64, "A fine film.", "positive", "negative", "positive", 0.0, 1.0),
        Flip("movie_sentiment", "0" * 64, HOSTILE, "positive", "positive", "negative", 1.0, 0.0),
    ]
    html = flips_html(flips)
    assert_self_contained(html)
    assert html.index(">lost<") < html.index("A fine film.") < html.index(">won<")


def test_images_of_flips_stand_in_their_rows_in_order():
    row = Flip("shade", "1" * 64, "How light?", "dark", "dark", "light", 1.0, 0.0, images=["b" * 64, "a" * 64])
    html = flips_html([row], images={"a" * 64: "AAAA", "b" * 64: "BBBB"})
    assert_self_contained(html)
    first, second = html.index("image/png;base64,BBBB"), html.index("image/png;base64,AAAA")
    assert first < html.index('alt="image 1 of 2 of row 111111111111"') < second < html.index("How light?")


def test_gate_page():
    hits = (1.0,) * 150 + (0.0,) * 50
    evidence = GateEvidence(
        prior=(PriorTask(HOSTILE, "1" * 64, "g1", hits, hits, hits[::-1], may_differ=True),),
        new=NewTask("new", (0.0,) * 200, hits, hits[:100], hits[:100]),
        validation="warn", drift="new", routing_share=1.0, costs=((HOSTILE, 1.5),),
    )  # fmt: skip
    html = gate_html(decide_gate(evidence, GateSettings(enforce=False)).to_json())
    assert_self_contained(html)
    assert "Not enforced" in html
    assert "lifetime" in html
