"""The policy's page: what is in force, proposals, and two admins."""

from components.audit.log import SYSTEM
from components.promotion import policy
from components.settings import PolicySettings
from lcia.console.views.policy import as_yaml


def _installed(server):
    with server.instance.db.begin() as connection:
        policy.install(connection, server.instance.assistant, PolicySettings(), actor=SYSTEM)
    server.person("second", "admin")
    return server


def test_without_a_server_policy_the_settings_file_is_named(shown, visit) -> None:
    html = visit(shown, "admin").page("/policy")
    assert "the section policy of zenml.yaml applies" in html
    assert "Propose a change" not in html


def test_every_key_stands_with_its_value_and_meaning(serve, champion, visit) -> None:
    server = _installed(serve(champion))
    page = visit(server, "submitter").page("/policy")
    with server.instance.db.read() as connection:
        standing = policy.in_force(connection, server.instance.assistant)
    for name, value in standing.content["gate"].items():
        assert f"{name} {as_yaml(value)}" in page
    assert "Drop of a prior task against the champion that the test must exclude to pass." in page
    assert "proposed by lcia, accepted by lcia" in page
    assert "Propose a change" not in page  # no admin


def test_one_admin_proposes_and_another_accepts(serve, champion, visit) -> None:
    server = _installed(serve(champion))
    first, second = visit(server, "admin"), visit(server, "second")
    changes = "gate:\n  step_margin: 0.05\napproval: {quorum: 2}\n"
    assert first.post("/do/propose-policy", changes=changes, reason="stricter", back="/policy").status_code == 303
    page = first.page("/policy")
    assert "approval.quorum 1 2 gate.step_margin 0.06 0.05" in page
    assert "another admin has to accept it" in page
    assert 'name="accept" value="true"' not in first.get("/policy").text
    refused = first.post("/do/answer-policy", proposal="2", accept="true", reason="mine")
    assert refused.status_code == 400
    assert "another admin has to" in refused.text
    assert 'name="accept" value="true"' in second.get("/policy").text
    assert second.post("/do/answer-policy", proposal="2", accept="true", reason="fine").status_code == 303
    page = second.page("/policy")
    assert "proposed by admin, accepted by second" in page
    assert "quorum 2 changed" in page


def test_a_refused_proposal_changes_nothing(serve, champion, visit) -> None:
    server = _installed(serve(champion))
    admin = visit(server, "admin")
    admin.post("/do/propose-policy", changes="gate: {enforce: false}", reason="try")
    assert admin.post("/do/answer-policy", proposal="2", accept="false", reason="no").status_code == 303
    page = admin.page("/policy")
    assert "Proposal 2 refused" in page
    assert "enforce true" in page


def test_bad_changes_are_refused_in_words(serve, champion, visit) -> None:
    admin = visit(_installed(serve(champion)), "admin")
    for changes, said in (
        ("gate: [", "can't be read as YAML"),
        ("a: &a [1]\nb: [*a, *a]", "anchor or alias"),
        ("just words", "expected keys and values"),
        ("gate: {step_margin: 7}", "policy.gate.step_margin"),
        ("gate: {margin: 0.1}", "policy.gate.margin"),
        ("gate: {step_margin: 0.06}", "changes nothing"),
    ):
        got = admin.post("/do/propose-policy", changes=changes, reason="r")
        assert got.status_code == 400
        assert said in got.text.replace("&#39;", "'")


def test_power_is_worked_out_apart_and_as_the_command_line_does(shown, visit) -> None:
    from lcia.worker.plan import lineage_power

    reader = visit(shown, "submitter")
    assert 'hx-get="/policy/power"' in reader.get("/policy").text
    power = lineage_power(shown.instance)
    part = reader.client.get("/policy/power", headers={"hx-request": "true"}).text
    assert f"{100 * power['pass_probability']:.1f} %" in part
    assert "<html" not in part
    assert "<html" in reader.get("/policy/power").text


def test_hostile_reasons_are_text(serve, champion, visit) -> None:
    admin = visit(_installed(serve(champion)), "admin")
    admin.post("/do/propose-policy", changes="gate: {enforce: false}", reason="<script>alert(1)</script>")
    html = admin.get("/policy").text
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_an_accepted_policy_holds_at_once_without_a_restart(serve, pending, visit) -> None:
    server = _installed(serve(pending))
    changes = "approval: {quorum: 2}\ngate: {enforce: false}"
    visit(server, "admin").post("/do/propose-policy", changes=changes, reason="r")
    visit(server, "second").post("/do/answer-policy", proposal="2", accept="true", reason="r")
    got = server.ask("approver", "approve", version="1", reason="one yes of two").json()
    assert (got["state"], got["exit_code"]) == ("pending", 3)
    assert server.ask("auditor", "policy").json()["policy"]["approval"]["quorum"] == 2
    assert "1 of 2 approvals" in visit(server, "auditor").page("/")
