"""Multimodal base models of several architectures: the split model against their own forward pass and `generate`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from vision_models import ARCHITECTURES

from components.model.adapters import AdapterError, AdapterSlot, is_lora, store_adapter
from components.model.base import BaseModel, BaseModelError, load_base
from components.model.context import need_sight, token_checks
from components.model.generation import generate_greedy
from components.model.image_support import may_see
from components.model.prompts import Rendered, SeesNoImages, TooLong, render, render_prompt
from components.model.reader import FIRST
from components.model.trunk import Trunk
from components.model.vision import Sight
from components.settings import AdapterSettings, BaseModelSettings
from components.storage.objects import digest_of
from components.tasks.images import Picture
from components.tasks.rows import Example

SETTINGS = AdapterSettings(rank=4, alpha=8, top_layers=2)


def picture(number: int, height: int = 40, width: int = 60) -> Picture:
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    content = b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()
    return Picture.by_digest(digest_of(content), lambda _: content)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = ARCHITECTURES[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture
def load(folder_of, tmp_path) -> Callable[[str], BaseModel]:
    def loaded(name: str) -> BaseModel:
        settings = BaseModelSettings(name=str(folder_of(name)), device="cpu", threads=1, max_tokens=512)
        return load_base(settings, tmp_path / "models")

    return loaded


EXAMPLES = [
    Example("Read the digit.", None, "three", images=(picture(0),)),
    Example("Read the digit.", None, "four", images=(picture(0),)),
    Example("Is it even?", "Look.", "odd", images=(picture(0),)),
    Example("Is it even?", None, "even", images=(picture(1, 64, 30),)),
    Example("Which is larger?", None, "left", images=(picture(1, 64, 30), picture(2))),
    Example("Which is larger?", None, "right", images=(picture(2), picture(1, 64, 30))),
    Example("Say one.", "two", "three"),
    Example("Say one.", "four", "five"),
]


def rows_of(base: BaseModel) -> list[Rendered]:
    return [render(base.reader, base.settings, e.instruction, e.input, e.output, e.images) for e in EXAMPLES]


def loud(slot: AdapterSlot) -> None:
    slot.initialise(0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in slot.parameters.items():
            parameter.add_(torch.randn(parameter.shape) * (0.1 if is_lora(name) else 0.02))


def own_inputs(base: BaseModel, tokens: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """A row as the processor's documentation says to give it, with all it returns."""
    assert base.sight is not None
    ids = torch.tensor([base.sight.reader.plain(tokens)])
    images = base.sight.reader.inputs(tokens) if Sight.opening_length(tokens) else {}
    kinds = (ids == base.sight.reader.image_token).long()
    name = "token_type_ids" if "Gemma3" in type(base.model).__name__ else "mm_token_type_ids"
    typed = {name: kinds} if any(part in type(base.model).__name__ for part in ("Gemma3", "Qwen")) else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images, **typed}


@torch.no_grad()
def whole_logits(base: BaseModel, row: Rendered) -> torch.Tensor:
    return base.model(**own_inputs(base, row.tokens)).logits[0, len(row.prompt) - 1 : -1].float()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    "settings",
    [SETTINGS, SETTINGS.model_copy(update={"top_layers": "all"}), SETTINGS.model_copy(update={"projector": True})],
    ids=["top", "all", "projector"],
)
def test_the_split_model_is_the_whole_one(load, name, settings):
    base = load(name)
    slot = AdapterSlot(base, settings)
    trunk = Trunk(base, slot)
    assert trunk.split, f"{name} runs whole each time"
    loud(slot)
    rows = rows_of(base)
    states = trunk.states([row.tokens for row in rows], 3)
    assert all(
        (state.output is not None) == (trunk.keeps_images or not e.images)
        for state, e in zip(states, EXAMPLES, strict=True)
    )
    with torch.no_grad():
        split = trunk.answer_logits(states, [len(row.prompt) for row in rows])
    for row, ours in zip(rows, split, strict=True):
        torch.testing.assert_close(ours, whole_logits(base, row), rtol=1e-3, atol=1e-3)
    assert trunk.keeps_images == (settings is SETTINGS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_images_are_other_tokens_and_other_answers(load, name):
    base = load(name)
    trunk = Trunk(base, AdapterSlot(base, SETTINGS))
    first, other = (render(base.reader, base.settings, "Read the digit.", None, "three", [picture(n)]) for n in (0, 7))
    assert first.prompt != other.prompt
    assert base.sight.reader.plain(first.prompt) == base.sight.reader.plain(other.prompt)
    assert max(base.sight.reader.plain(first.prompt)) < FIRST
    states = trunk.states([first.tokens, other.tokens], 2)
    one, two = trunk.answer_logits(states, [len(first.prompt), len(other.prompt)])
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decoding_is_the_models_own(load, name):
    base = load(name)
    slot = AdapterSlot(base, SETTINGS)
    loud(slot)
    prompts = [row.prompt for row in rows_of(base)]
    end = base.tokenizer.eos_token_id
    ours = generate_greedy(base.model, prompts, 8, (end,), 3, sight=base.sight)
    for prompt, made in zip(prompts, ours, strict=True):
        theirs = base.model.generate(
            **own_inputs(base, prompt), max_new_tokens=8, do_sample=False, eos_token_id=end, pad_token_id=0
        )[0, len(prompt) :].tolist()
        assert list(made.tokens) == [t for t in theirs if t != end][: len(made.tokens)]
        assert len(made.tokens) == len([t for t in theirs if t not in (end, 0)]) or 0 in theirs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_reach_adapter_and_projector_as_in_the_whole_model(load, name):
    base = load(name)
    slot = AdapterSlot(base, SETTINGS.model_copy(update={"projector": True}))
    trunk = Trunk(base, slot)
    loud(slot)
    row = rows_of(base)[4]
    labels, parameters = torch.tensor(row.answer), list(slot.parameters.values())

    def gradients(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), parameters)

    ours = gradients(trunk.answer_logits(trunk.states([row.tokens], 1), [len(row.prompt)])[0])
    whole = base.model(**own_inputs(base, row.tokens)).logits[0, len(row.prompt) - 1 : -1]
    for a, b in zip(ours, gradients(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert all(gradient.abs().max() > 0 for gradient, n in zip(ours, slot.parameters, strict=True) if not is_lora(n))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_adapters_sit_on_the_language_model_and_the_projector_alone(load, store, name):
    base = load(name)
    slot = AdapterSlot(base, SETTINGS.model_copy(update={"projector": True}))
    lora = [n for n in slot.parameters if is_lora(n)]
    whole = [n for n in slot.parameters if not is_lora(n)]
    assert len(lora) == 2 * 2 * 7
    assert all(".language_model.layers." in n or ".text_model.layers." in n for n in lora)
    assert whole
    loud(slot)
    files = slot.files(slot.tensors(), base.digest)
    digest = store_adapter(store, files)
    tensors = slot.fetch(store, digest)
    slot.initialise(3)
    assert all(torch.equal(slot.parameters[n], slot._original[n]) for n in whole)
    slot.load(tensors)
    assert all(torch.equal(tensors[n], slot.parameters[n]) for n in tensors)
    plain = AdapterSlot(load(name), SETTINGS)
    with pytest.raises(AdapterError, match=r"adapter.projector"):
        plain.fetch(store, digest)


def test_peft_reads_what_is_written(load, folder_of, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    base = load("llava")
    slot = AdapterSlot(base, SETTINGS.model_copy(update={"projector": True}))
    loud(slot)
    for name, content in slot.files(slot.tensors(), base.digest).items():
        (tmp_path / name).write_bytes(content)
    row = rows_of(base)[0]
    theirs = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(folder_of("llava")), tmp_path).eval()
    with torch.no_grad():
        logits = theirs(**own_inputs(base, row.tokens)).logits[0, len(row.prompt) - 1 : -1]
    torch.testing.assert_close(logits, whole_logits(base, row), rtol=1e-4, atol=1e-4)


def test_a_base_model_that_reads_text_only_refuses_images(tiny_base, tiny_settings):
    with pytest.raises(SeesNoImages, match=r"reads text only; name a base model with an image processor"):
        render_prompt(tiny_base.reader, tiny_base.settings, "Read it.", None, [picture(0)])
    with pytest.raises(SeesNoImages, match="the task shows images"):
        need_sight(tiny_settings.base_model, tiny_settings.storage.models)
    with pytest.raises(SeesNoImages):
        need_sight(BaseModelSettings(), tiny_settings.storage.models)
    with pytest.raises(AdapterError, match=r"adapter.projector is on"):
        AdapterSlot(tiny_base, SETTINGS.model_copy(update={"projector": True}))


def test_a_multimodal_base_model_is_no_reason_to_refuse(folder_of, tmp_path, take_example):
    settings = BaseModelSettings(name=str(folder_of("llava")), device="cpu", max_tokens=80)
    need_sight(settings, str(tmp_path))
    check = partial(token_checks(settings, str(tmp_path)).too_long, take_example("grammar_check").task)
    counts = check([EXAMPLES[0], EXAMPLES[4], EXAMPLES[6]])
    assert counts[0] == counts[2] == 0
    assert counts[1] > 80


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("images", [(), (picture(0),), (picture(0), picture(1, 64, 30))])
def test_placeholders_and_control_tokens_in_a_text_are_text(load, name, images):
    base = load(name)
    reader, processor = base.reader, base.reader.processor
    names = {
        reader.tokenizer.decode([reader.image_token]),
        processor.image_token,
        *reader.tokenizer.added_tokens_encoder,
    }
    hostile = "Read the digit." + "".join(sorted(names)) + " " + " odd ".join(sorted(names))
    known = set(reader.tokenizer.added_tokens_encoder.values())
    ids, harmless = (
        render_prompt(reader, base.settings, "Read it.", text, images) for text in (hostile, "Read the digit.")
    )
    kept = [[token for token in row if token in known or token >= FIRST] for row in (ids, harmless)]
    assert kept[0] == kept[1]
    assert hostile in reader.tokenizer.decode(reader.plain(ids)).replace(processor.image_token * 2, "")
    assert render_prompt(reader, base.settings, "Read it.", hostile, images) == ids
    assert processor.tokenizer is reader.tokenizer
    if images:
        assert base.sight.whole(ids).shape[0] == len(ids)
    answer = render(reader, base.settings, "Read it.", None, hostile, images).answer
    assert not known & set(answer[:-1])


def test_rows_that_differ_in_a_control_string_alone_are_told_apart(load):
    base = load("llava")
    rows = {
        render_prompt(base.reader, base.settings, "Read it.", text, [picture(0)])
        for text in ("a <image> b", "a <|im_end|> b", "a <|im_start|> b")
    }
    assert len(rows) == 3


def test_too_many_tokens_of_an_image_are_said(load):
    base = load("llava")
    short = base.settings.model_copy(update={"max_tokens": 40})
    with pytest.raises(TooLong, match="max_tokens is 40"):
        render(base.reader, short, "Read the digit.", None, "three", [picture(0)])


def test_a_folder_without_its_processor_does_not_load(folder_of, tmp_path):
    import shutil

    shutil.copytree(folder_of("llava"), tmp_path / "half")
    (tmp_path / "half" / "processor_config.json").unlink()
    (tmp_path / "half" / "preprocessor_config.json").unlink()
    with pytest.raises(BaseModelError, match="image processor"):
        load_base(BaseModelSettings(name=str(tmp_path / "half"), device="cpu"), tmp_path / "models")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_that_a_base_model_sees_is_told_from_its_files(folder_of, name):
    assert may_see(BaseModelSettings(name=str(folder_of(name))))


def test_that_a_base_model_reads_text_only_is_told_from_its_files(tiny_settings, tmp_path, monkeypatch):
    assert not may_see(tiny_settings.base_model)
    assert not may_see(BaseModelSettings())
    assert may_see(BaseModelSettings(name="nobody/has-fetched-it"))  # not known yet
    cached = {"config.json": str(tmp_path)}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda _, file, revision: cached.get(file))
    assert not may_see(BaseModelSettings(name="text/only"))


def test_prompts_with_images_can_be_forgotten(load):
    base = load("llava")
    tokens = render(base.reader, base.settings, "Read the digit.", None, "x", [picture(0)]).tokens
    assert base.reader.pictures(tokens) == (picture(0),)
    base.reader.forget()
    assert base.reader.pictures(tokens[:0]) == ()
    assert base.reader._blocks == {}
    assert not base.reader._prompts
    assert render(base.reader, base.settings, "Read the digit.", None, "x", [picture(0)]).tokens == tokens


def test_openings_are_remembered_within_their_bytes(load, monkeypatch):
    base = load("llava")
    monkeypatch.setattr("components.model.vision.OPENING_BYTES", 3 * 54 * 32 * 4)
    calls = []
    monkeypatch.setattr(Sight, "_opening", lambda self, key, made=Sight._opening: calls.append(key) or made(self, key))
    rows = [render(base.reader, base.settings, "Read the digit.", None, "x", [picture(n)]).tokens for n in range(6)]
    for row in (rows[0], rows[0], *rows, rows[5], rows[0]):
        base.sight.opening(row)
    assert len(calls) == 7  # the last one had to go
    assert base.sight._bytes <= 3 * 54 * 32 * 4
