"""What a request's input says about its task, by either encoder."""

import json

import numpy as np
import pytest

from components.grouping.encoders import fit_encoder
from components.grouping.input_profile import LEAST_ROWS, MOST_ROWS, InputProfile
from components.grouping.inputs import FLOOR, WEIGHT, evidence
from components.grouping.pool import GroupTask, Pool, PoolError
from components.grouping.router import Router, extend, lets_in
from components.settings import GroupingSettings

RECIPES = [
    f"Stir {n} g of flour into the warm butter, add milk and simmer the sauce for {n} minutes." for n in range(30)
]
INVOICES = [f"Invoice no. {n}: two pallets of cardboard, total {n}.00 EUR, payable within 30 days." for n in range(30)]
ENCODERS = ("tfidf", "embedding")


def pool_of(settings: GroupingSettings, *tasks: tuple[str, tuple[str, ...], list[str]]) -> Pool:
    pool = Pool.empty("assistant", "b" * 64)
    for i, (name, texts, inputs) in enumerate(tasks):
        profile = fit_encoder(settings, texts).profile(inputs)
        pool = extend(
            pool, GroupTask(f"{i:064x}", name, texts, inputs=profile), group=None, adapter="f" * 64, curvature=None,
            parent=None, config="c" * 64, settings=settings,
        )  # fmt: skip
    return pool


def kitchen_and_office(settings: GroupingSettings) -> Pool:
    return pool_of(
        settings,
        ("allergens", ("Name the problematic parts of the text.",), RECIPES),
        ("deadline", ("Find the important parts of the text.",), INVOICES),
    )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_input_settles_what_the_instruction_leaves_open(encoder):
    router = Router.of(kitchen_and_office(GroupingSettings(encoder=encoder, request_threshold=0.05)))
    vague = "Give me the parts of the text, please."
    recipe = router.route(vague, "Melt the butter, add flour and milk, and season the sauce.")
    invoice = router.route(vague, "Invoice 7781: one pallet, 1,200.00 EUR, payable within 14 days.")
    assert (recipe.group, invoice.group) == ("g1", "g2")
    assert recipe.nearest_task == "allergens"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_input_never_lets_in_what_the_instruction_keeps_out(encoder):
    router = Router.of(kitchen_and_office(GroupingSettings(encoder=encoder)))
    foreign = "Which chess opening suits a beginner?"
    alone, with_input = router.route(foreign), router.route(foreign, RECIPES[3])
    assert alone.group is None
    assert with_input.group is None
    assert with_input.score <= with_input.similarity


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_instruction_of_a_task_goes_there_whatever_its_input(encoder):
    router = Router.of(kitchen_and_office(GroupingSettings(encoder=encoder)))
    route = router.route("Name the problematic parts of the text.", INVOICES[2])
    assert (route.group, route.exact, route.evidence) == ("g1", True, 0.0)


def test_evidence_is_a_share_bounded_on_both_sides():
    lowered = evidence(np.array([[50.0, 0.0, -50.0], [0.0, 0.0, 0.0], [-80.0, -80.0, -80.0]]))
    assert lowered.max() <= 0
    assert lowered.min() == pytest.approx(WEIGHT * FLOOR)
    assert lowered[0, 0] == pytest.approx(0, abs=1e-9)
    assert lowered[1] == pytest.approx(WEIGHT * np.log(0.25))  # three tasks and the general texts, alike
    assert (lowered[2] == WEIGHT * FLOOR).all()  # an input like no task's


@pytest.mark.parametrize("encoder", ENCODERS)
def test_profiles_need_enough_inputs_and_hold_no_text(encoder):
    built = fit_encoder(GroupingSettings(encoder=encoder), ["x"])
    assert built.profile([*RECIPES[1:LEAST_ROWS], "", "  "]) is None
    profile = built.profile(RECIPES * 10)
    assert profile is not None
    assert profile.rows == MOST_ROWS
    text = json.dumps(profile.to_json())
    assert "flour" not in text
    assert len(text) < 3500
    assert InputProfile.from_json(json.loads(text)) == profile


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_manifest_carries_profiles_and_routes_the_same_when_read_back(encoder):
    settings = GroupingSettings(encoder=encoder)
    pool = kitchen_and_office(settings)
    again = Pool.from_manifest(json.loads(json.dumps(pool.to_manifest())))
    assert again == pool
    asked = ["Which parts of the text matter?", "What is the tallest mountain?"]
    for one, other in zip(
        Router.of(pool).route_many(asked, [INVOICES[0], None]),
        Router.of(again).route_many(asked, [INVOICES[0], None]),
        strict=True,
    ):
        assert one == other


def test_a_broken_profile_is_refused():
    manifest = kitchen_and_office(GroupingSettings(encoder="tfidf")).to_manifest()
    manifest["groups"][0]["tasks"][0]["inputs"]["values"] = "?"
    with pytest.raises(PoolError, match="inputs of task 'allergens'"):
        Pool.from_manifest(manifest)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_task_without_profile_is_neither_favoured_nor_harmed(encoder):
    settings = GroupingSettings(encoder=encoder, request_threshold=0.01)
    bare = pool_of(settings, ("allergens", ("Name the problematic parts of the text.",), []))
    route = Router.of(bare).route("Name problematic parts.", RECIPES[0])
    assert route.evidence == pytest.approx(WEIGHT * np.log(0.5), abs=1e-6)  # as likely as general texts


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_thresholds_let_in_the_stated_share_of_general_requests(encoder):
    strict, loose = (GroupingSettings(encoder=encoder, general_share=share) for share in (0.01, 0.2))
    shares = []
    for settings in (strict, loose):
        routes = Router.of(kitchen_and_office(settings)).general_routes()
        shares.append(sum(route.group is not None for route in routes) / len(routes))
    assert shares[0] <= 0.011 + 0.05  # general requests that ask for the very task don't count
    assert shares[0] < shares[1] <= 0.25


def test_lets_in_is_the_least_threshold_for_a_share():
    scores = np.linspace(0, 1, 101)
    threshold = lets_in(scores, 0.05)
    assert (scores >= threshold).mean() <= 0.05
    assert (scores >= threshold - 0.0101).mean() > 0.05


def test_versions_of_earlier_releases_read_no_input_and_keep_their_threshold():
    pool = kitchen_and_office(GroupingSettings(encoder="tfidf"))
    manifest = pool.to_manifest()
    manifest["router"] = {key: manifest["router"][key] for key in ("rule", "encoder")} | {"request_threshold": 0.2}
    for group in manifest["groups"]:
        for task in group["tasks"]:
            del task["inputs"]
    router = Router.from_manifest(manifest)
    asked = "Name important parts."
    assert router.route(asked, INVOICES[0]).threshold == router.route(asked).threshold == 0.2


@pytest.mark.parametrize("encoder", ENCODERS)
def test_inputs_of_another_encoder_are_left_out(encoder):
    other = {"tfidf": "embedding", "embedding": "tfidf"}[encoder]
    profile = fit_encoder(GroupingSettings(encoder=other), ["x"]).profile(RECIPES)
    settings = GroupingSettings(encoder=encoder)
    pool = extend(
        Pool.empty("assistant", "b" * 64), GroupTask("1" * 64, "allergens", ("Name the allergens.",), inputs=profile),
        group=None, adapter="f" * 64, curvature=None, parent=None, config="c" * 64, settings=settings,
    )  # fmt: skip
    assert Router.of(pool).route("Allergens?", RECIPES[0]).evidence == pytest.approx(WEIGHT * np.log(0.5), abs=1e-6)
