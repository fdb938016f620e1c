"""A version that is ready to be asked: its tasks by name and by route, and the settings that it fixed."""

from dataclasses import replace

import pytest

from components.grouping.router import extend
from components.model.prompts import render_prompt
from components.serving import bundle
from components.serving.contract import BASE, NoSuchTask, contract_of_task
from components.serving.conversation import Conversation
from components.serving.loaded import Loaded, settings_of
from components.settings import GroupingSettings

QUESTION = ("user", "Rewrite the sentence in the passive voice.\nThe doctor thanked the manager.")


@pytest.fixture
def version(learnt, tiny_base):
    """The third version, without weights, and the settings of its machine."""
    instance = learnt.loop.open()
    files = bundle.from_store(instance.store, learnt.digests[-1])
    settings = instance.settings
    return Loaded.of(3, files, settings.base_model, tiny_base.tokenizer, settings.grouping), settings


def test_a_named_task_needs_no_router(version):
    loaded, _ = version
    odd = Conversation((("user", "qqq zzz"),))
    asked = loaded.question(odd, task="passive_voice")
    assert (asked.contract.task, asked.contract.group, asked.named) == ("passive_voice", "g2", True)
    assert loaded.question(odd).contract == BASE
    with pytest.raises(NoSuchTask, match=r"has not learnt a task 'nope'; it knows: movie_sentiment, passive_voice"):
        loaded.question(odd, task="nope")
    assert loaded.tasks == ("movie_sentiment", "product_sentiment", "passive_voice")


@pytest.fixture
def refreshed(learnt):
    """The third version after it learnt a second version of its first task, with the same instructions."""
    files = bundle.from_store(learnt.loop.open().store, learnt.digests[-1])
    pool, entry = files.pool, files.pool.tasks()[0]
    task = files.tasks[entry.task].model_copy(update={"version": "2", "choices": ("bad", "good")})
    again = replace(entry, task="2" * 64, name=f"{entry.name}@2")
    grown = extend(
        pool, again, group="g1", adapter="a" * 64, curvature=None, parent=None, config=str(pool.config),
        settings=GroupingSettings(), without_claim=[entry.name],
    )  # fmt: skip
    return replace(files, pool=grown, tasks={**files.tasks, again.task: task})


def test_a_name_means_its_newest_version_and_a_label_the_very_one(refreshed):
    assert contract_of_task(refreshed, "movie_sentiment").task == "movie_sentiment@2"
    assert contract_of_task(refreshed, "movie_sentiment").choices == ("bad", "good")
    assert contract_of_task(refreshed, "movie_sentiment@2").task == "movie_sentiment@2"
    assert contract_of_task(refreshed, "movie_sentiment@1").task == "movie_sentiment"
    state = {key: value for key, value in refreshed.pool.router.items() if key not in ("learnt", "replaced")}
    old = replace(refreshed, pool=replace(refreshed.pool, router=state))
    assert contract_of_task(old, "movie_sentiment").task == "movie_sentiment", "as the release that made it said"
    assert contract_of_task(old, "movie_sentiment@2").task == "movie_sentiment@2"


def test_a_shared_instruction_is_answered_under_the_newer_tasks_decoding(refreshed, version, tiny_base):
    _, settings = version
    loaded = Loaded.of(4, refreshed, settings.base_model, tiny_base.tokenizer, settings.grouping)
    instruction = refreshed.pool.tasks()[0].instructions[0]
    asked = loaded.question(Conversation((("user", f"{instruction}\nA fine film."),)))
    assert (asked.contract.task, asked.contract.choices) == ("movie_sentiment@2", ("bad", "good"))
    named = loaded.question(Conversation((("user", "x"),)), task="movie_sentiment")
    assert named.route.nearest_task == "movie_sentiment@2"


def test_the_prompt_is_that_of_a_row_and_choices_are_the_tasks_or_the_callers(version, tiny_base):
    loaded, settings = version
    asked = loaded.question(Conversation((QUESTION,)))
    instruction, text = QUESTION[1].split("\n")
    assert asked.prompt == render_prompt(tiny_base.tokenizer, settings.base_model, instruction, text)
    assert asked.is_row
    film = loaded.question(Conversation((QUESTION,)), task="movie_sentiment")
    assert film.contract.choices
    own = loaded.question(Conversation((QUESTION,)), task="movie_sentiment", choices=("a", "b"))
    assert own.contract.choices == ("a", "b")
    assert loaded.question(Conversation((QUESTION,)), task="passive_voice", choices=("a",)).contract.choices == ()


def test_the_base_model_alone_is_one_without_a_version(version, tiny_base):
    _, settings = version
    alone = Loaded.of(None, None, settings.base_model, tiny_base.tokenizer, settings.grouping)
    assert alone.question(Conversation((QUESTION,))).contract == BASE
    assert (alone.tasks, alone.adapters, alone.digest) == ((), frozenset(), None)


def test_a_version_fixes_prompt_limits_and_shape_and_the_machine_keeps_its_places(version):
    loaded, settings = version
    other = settings.model_copy(
        update={
            "base_model": settings.base_model.model_copy(
                update={"system_prompt": "Other.", "max_tokens": 99, "threads": 7}
            ),
            "adapter": settings.adapter.model_copy(update={"rank": 64}),
        }
    )
    own = settings_of(loaded.bundle, other)
    assert (own.base_model.system_prompt, own.base_model.max_tokens) == (
        settings.base_model.system_prompt,
        loaded.bundle.settings.base_model.max_tokens,
    )
    assert own.adapter == loaded.bundle.settings.adapter
    assert (own.base_model.threads, own.base_model.name) == (7, other.base_model.name)
    absent = other.model_copy(update={"base_model": other.base_model.model_copy(update={"name": "/nonexistent"})})
    assert settings_of(loaded.bundle, absent).base_model.name == loaded.bundle.settings.base_model.name
    assert settings_of(None, other) is other
