"""Chat templates with a date, and base models that end a turn by another token than their tokenizer names."""

import json
import shutil
from datetime import UTC, date, datetime

import pytest
from transformers.utils import chat_template_utils

from components.evaluation.prediction import Evaluator
from components.model.adapters import AdapterSlot
from components.model.base import load_base, load_reader
from components.model.chat import with_date
from components.model.generation import generate_greedy
from components.model.prompts import answer_tokens, render, render_prompt
from components.model.stepwise import decode
from components.model.trunk import Trunk
from components.settings import AdapterSettings, BaseModelSettings, Settings, stored_settings

LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    '{%- endif %}<|im_start|>system\nToday Date: {{ date_string }}, {{ strftime_now("%B %-d, %A") }}<|im_end|>\n'
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PHI = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|im_end|>{% endif %}"
)


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model with another template and end tokens in its generation configuration."""

    def folder(template=None, ends=None):
        place = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny_folder, place)
        if template:
            (place / "chat_template.jinja").write_text(template)
        if ends is not None:
            (place / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        return place

    return folder


def settings_of(place, **fields) -> BaseModelSettings:
    return BaseModelSettings(name=str(place), device="cpu", threads=1, **fields)


def test_a_template_that_asks_for_no_date_stays_as_it_is() -> None:
    assert with_date(PHI, date(2026, 1, 1)) is PHI


@pytest.mark.parametrize("start", ["", "\n", "  \n"])
def test_what_stands_around_the_date_stays(start, folder, tmp_path) -> None:
    template, turns = f"{start}{{{{ strftime_now('%Y') }}}}\n{PHI}", [{"role": "user", "content": "Hi"}]
    reader = load_reader(settings_of(folder()), tmp_path / "store")
    ours, theirs = (
        reader.apply_chat_template(turns, chat_template=each, tokenize=False)
        for each in (with_date(template, datetime.now(UTC).date()), template)
    )
    assert ours == theirs


def test_a_prompt_is_the_same_on_every_day(folder, tmp_path, monkeypatch) -> None:
    place = folder(LLAMA)
    reader = load_reader(settings_of(place), tmp_path / "store")
    texts = []
    for today in (datetime(2026, 11, 30, 9, 5, tzinfo=UTC), datetime(2027, 2, 1, 23, 59, tzinfo=UTC)):

        class Clock(datetime):
            @classmethod
            def now(cls, _zone=None, today=today):
                return today

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        plain = reader.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
        assert today.strftime("%b %Y") in plain
        texts.append(reader.decode(render_prompt(reader, settings_of(place), "Judge it.", "Fine.")))
    assert texts[0] == texts[1]
    assert "Today Date: 01 Jan 2026, January 1, Thursday<|im_end|>" in texts[0]
    other = settings_of(place, date=date(2025, 12, 24))
    assert "24 Dec 2025, December 24, Wednesday" in reader.decode(render_prompt(reader, other, "Judge it.", "Fine."))


def test_the_date_is_recorded_where_it_is_not_the_usual_one() -> None:
    assert "date" not in Settings().content()["base_model"], "digests of versions before it stay"
    settings = Settings.model_validate({"base_model": {"date": "2025-12-24"}})
    assert settings.content()["base_model"]["date"] == "2025-12-24"
    assert stored_settings(settings.content()).base_model.date == date(2025, 12, 24)


@pytest.mark.parametrize(
    ("template", "ends", "expected"),
    [
        (None, 2, (2,)),
        (None, [2, 0], (2, 0)),
        (PHI, [0, 1, 2], (0, 2, 1)),
        (PHI, 2, (2,)),
        (None, [2, 300], (2,)),  # a token of texts ends nothing
        ("{{ raise_exception('no') }}", [0, 2], (2, 0)),
    ],
)
def test_end_tokens_are_the_tokenizers_and_the_generation_configurations(
    folder, tmp_path, template, ends, expected
) -> None:
    reader = load_reader(settings_of(folder(template, ends)), tmp_path / "store")
    assert answer_tokens(reader, "yes")[-1] == expected[0], "the one that ends a turn is learnt"
    assert load_base(settings_of(folder(template, ends)), tmp_path / "store").ends == expected


def test_decoding_ends_at_any_of_them_and_predictions_know_it(folder, tmp_path, take_example) -> None:
    bases = [load_base(settings_of(folder(PHI, ends)), tmp_path / "store") for ends in ([2], [0, 2])]
    prompt = render_prompt(bases[0].reader, bases[0].settings, "Judge it.", "Fine.")
    free = generate_greedy(bases[0].model, [prompt], 12, (), 1)[0].tokens
    ends = (free[7], free[4])
    assert generate_greedy(bases[0].model, [prompt], 12, ends, 1)[0].tokens == free[: free.index(free[4])][:7]
    assert tuple(s.token for s in decode(bases[0].model, prompt, 12, ends)) == free[: free.index(free[4])][:7]
    snapshot = take_example("movie_sentiment", test=3)
    keys, rows = [], []
    for base in bases:
        slot = AdapterSlot(base, AdapterSettings(rank=2, alpha=4, top_layers=1))
        evaluator = Evaluator(Trunk(base, slot), slot, 4)
        keys.append((evaluator.contract, evaluator.query(snapshot.task, snapshot.rows("test")[0], None).key))
        rows.append(render(base.reader, base.settings, "Judge it.", "Fine.", "yes"))
    assert keys[0] != keys[1]
    assert [row.answer[-1] for row in rows] == [2, 0]


def test_an_answer_that_ends_with_the_other_token_is_certified_as_it_is_decoded(folder, tmp_path, take_example) -> None:
    base = load_base(settings_of(folder(PHI, [0, 2])), tmp_path / "store")
    slot = AdapterSlot(base, AdapterSettings(rank=2, alpha=4, top_layers=1))
    evaluator, snapshot = Evaluator(Trunk(base, slot), slot, 4), take_example("passive_voice", test=6)
    queries = [evaluator.query(snapshot.task, row, None) for row in snapshot.rows("test")]
    limit = snapshot.task.decoding.max_new_tokens
    plain = generate_greedy(base.model, [q.rendering.prompt for q in queries], limit, base.ends, 2)
    texts = [base.tokenizer.decode(each.tokens, skip_special_tokens=True) for each in plain]
    assert [prediction.text for prediction in evaluator.predict(queries, {})] == texts
