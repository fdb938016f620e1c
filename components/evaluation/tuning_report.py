"""The tuning report: what was trained on what, loss, beta, distance, fallbacks, and the points that were kept."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from components.evaluation.pictures import beta_png, distance_png, loss_png
from components.pages import fragment, page

_BODY = """
<p>Rule <b>{{ r.rule }}</b>{% if r.rule == "none" %}: {{ plain }}{% endif %}.
{{ r.rows }} rows of the task{% if r.rehearsed_rows %}, {{ r.rehearsed_rows }} kept rows of earlier tasks
rehearsed{% endif %}{% if r.recalled_rows %}, {{ r.recalled_rows }} rows recalled by the parent{% endif %};
{{ r.losses|length }} optimizer steps{% if r.stopping %}: {{ r.stopping.words }}{% endif %}.
Loss {{ "%.3f"|format(r.losses[0]) }} at the first step,
{{ "%.3f"|format(tail) }} over the last ten.
{% for remark in r.length.remarks %}<b>{{ remark }}.</b> {% endfor %}
{% if r.pseudo_labels %}<b>Pseudo-labels</b>: {{ r.pseudo_labels.words }}.{% endif %}</p>
{% for name, caption in captions %}
<figure style="margin: 1rem 0"><img alt="{{ name }}" src="data:image/png;base64,{{ pictures[name] }}" width="620">
<figcaption class="note">{{ caption }}</figcaption></figure>
{% endfor %}
{% if dynamic %}
<h2>Fallbacks</h2>
<p>{{ "%.1f"|format(100 * r.fallback_share) }} % of the updates fell back to a fixed beta, because the rule's formula
was undefined or left its range. The first update of every tensor always does: there is no earlier gradient yet.
{% if not fallbacks %}No other one did.{% endif %}</p>
{% if fallbacks %}
<table><tr><th>tensors where most updates fell back</th><th class="n">updates</th><th class="n">share</th></tr>
{% for name, count in fallbacks %}
<tr><td class="x">{{ name }}</td><td class="n">{{ count }}</td>
<td class="n">{{ "%.1f"|format(100 * count / r.losses|length) }} %</td></tr>
{% endfor %}
</table>
{% endif %}
{% endif %}
<h2>Points on the stability-plasticity curve</h2>
<table><tr><th>point</th><th>what it is</th></tr>
{% for name, words in points %}
<tr><td>{{ name }}</td><td>{{ words }}</td></tr>
{% endfor %}
</table>
<p class="note">{% if points|length > 1 %}
The evaluation scores them on validation rows of the new task and of the earlier ones and chooses one; its report shows
the curve with the chosen point.
{% else %}
There is nothing to choose.
{% endif %}</p>
"""
_PLAIN = "this tuning had no earlier task of its group to protect, or protection was switched off"
_DYNAMIC = ("paper", "released", "scale_free")


def tuning_pictures(record: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG pictures of a tuning record by name: `loss`, and `beta` and `distance` where an EMA ran."""
    steps, history = len(record["losses"]), record["history"]
    pictures = {"loss": loss_png(record["losses"], record.get("old_losses", ()))}
    if history["beta_median"]:
        between = ("live", "parent's") if record["rule"] == "curvature" else ("live", "protected")
        pictures["beta"] = beta_png(history, steps)
        pictures["distance"] = distance_png(history, steps, "the {} and the {} weights".format(*between))
    return pictures


def tuning_html(record: Mapping[str, Any]) -> str:
    """Self-contained page of a tuning record."""
    pictures = {name: base64.b64encode(data).decode() for name, data in tuning_pictures(record).items()}
    last, fallbacks = record["losses"][-10:], record.get("fallbacks", {})
    body = fragment(
        _BODY,
        r={"recalled_rows": 0, "pseudo_labels": None, "stopping": None, "length": {"remarks": ()}, **record},
        plain=_PLAIN,
        dynamic=record["rule"] in _DYNAMIC,
        fallbacks=sorted(fallbacks.items(), key=lambda item: -item[1])
        if max(fallbacks.values(), default=0) > 1
        else [],
        tail=sum(last) / len(last),
        pictures=pictures,
        captions=[(name, _caption(name, record)) for name in pictures],
        points=[(name, _meaning(name)) for name in record["points"]],
    )
    return page("Tuning", body)


def _caption(name: str, record: Mapping[str, Any]) -> str:
    old = any(x is not None for x in record.get("old_losses", ()))
    if name == "loss":
        return "Dots are single steps. " + (
            "If the loss on rows of earlier tasks rises while the other falls, learning costs what was known."
            if old else "No row of an earlier task was seen."
        )  # fmt: skip
    if record["rule"] == "curvature":
        return {
            "beta": "After each step every entry goes back towards the parent's value by this share of its distance "
            "(mean over each tensor's entries): by more where the earlier tasks' loss depends on the entry.",
            "distance": "How far the live weights are from where this tuning began.",
        }[name]
    return {
        "beta": "After each step the protected weights keep this share of themselves and take the rest from the live "
        "ones. At 1 they stand still; far below it they just follow, and nothing is protected.",
        "distance": "How far the protected weights (point ema) are from the live ones. Falling towards zero, they have "
        "caught up.",
    }[name]


def _meaning(name: str) -> str:
    if name == "live":
        return "the weights as the optimizer left them"
    if name == "ema":
        return "the protected weights of the rule"
    if match := re.fullmatch(r"mix-([\d.]+)-([\d.]+)", name):
        return (
            f"parent + share (live - parent), share {match[1]} in the lower half of the layers, {match[2]} in the upper"
        )
    return f"parent + share (live - parent), share {name.removeprefix('mix-')}"
