"""Two versions side by side."""

from components.storage.database import Database


def test_the_ticked_versions_are_compared_the_older_first(shown, visit) -> None:
    page = visit(shown, "auditor").page("/compare?v=3&v=1")
    assert "Version 1 and version 3" in page
    assert "Tasks in both: 1." in page
    assert "product_sentiment, passive_voice" in page  # what only the later one has
    assert "None: both were learnt with the same settings." in page


def test_gains_stand_with_their_intervals_as_the_operation_says(shown, visit) -> None:
    found = shown.ask("auditor", "diff", before="2", after="3").json()
    html = visit(shown, "auditor").get("/compare?before=2&after=3").text
    assert html.count('class="interval"') == len(found["scores"]) == 2
    for row in found["scores"]:
        assert f"{row['after']:.3f}" in html
    assert html.count("no answer changed") == sum(row["same_object"] for row in found["scores"])


def test_more_than_two_ticks_are_said(shown, visit) -> None:
    page = visit(shown, "auditor").page("/compare?v=3&v=1&v=2")
    assert "the first and the last of the 3" in page


def test_nothing_chosen_asks_for_a_choice_and_the_unknown_is_refused(shown, visit) -> None:
    reader = visit(shown, "auditor")
    assert "Choose two versions." in reader.page("/compare")
    assert "the highest number is 3" in reader.page("/compare?before=9&after=1", 404)
    assert "the highest number is 3" in reader.page("/compare?v=9", 404)


def test_other_numerics_are_said_to_be_not_comparable(serve, champion, visit) -> None:
    server = serve(champion)
    version = server.instance.version(3)
    evidence = server.instance.evidence(version)
    other = {**server.instance.store.get_json(evidence["evaluation"]), "numerics_digest": "0" * 64}
    changed = server.instance.store.put_json({**evidence, "evaluation": server.instance.store.put_json(other)})
    _set_evidence(server.instance.db, version.digest, changed)
    assert "can't be compared row by row" in visit(server, "auditor").page("/compare?before=2&after=3")


def test_without_an_mlflow_server_there_is_no_link_to_it(shown, visit) -> None:
    reader = visit(shown, "auditor")
    assert "MLflow" not in reader.page("/compare?before=1&after=2")
    assert "a database here" in reader.page("/compare/mlflow?v=1&v=2", 400)


def _set_evidence(db: Database, digest: str, evidence: str) -> None:
    from sqlalchemy import update

    from components.storage.tables import candidates

    with db.begin() as connection:
        connection.execute(update(candidates).where(candidates.c.digest == digest).values(evidence=evidence))
