"""What auditors get from the service: heads, proofs, statements and keys, which hold without it."""

from pathlib import Path

from components.audit import proofs, statement
from components.audit.keys import TrustedKeys, key_id, read_head, read_public_key


def test_an_auditor_gets_what_he_can_check_alone(serve, champion):
    server = serve(champion)
    public = read_public_key(Path(server.instance.settings.audit.public_key))
    head = server.ask("auditor", "head").json()
    assert read_head(head["signed"].encode(), TrustedKeys.of(public)).entries == head["entries"]
    proof = server.ask("auditor", "prove", version="1").json()
    assert proofs.check(proof["proof"].encode(), public).entry["action"] == "champion.promoted"
    grown = server.ask("auditor", "prove", since=head["signed"]).json()
    assert proofs.check(grown["proof"].encode(), public).first.entries == head["entries"]
    told = server.ask("submitter", "statement").json()
    assert statement.read(told["statement"].encode(), public).version == server.instance.champion().digest
    assert server.ask("submitter", "keys").json()["signs"] == key_id(public)


def test_what_can_not_be_proven_is_refused(serve, pending):
    server = serve(pending)
    for params in ({}, {"version": "1"}, {"entry": 99999}, {"since": "nothing"}, {"version": "1", "entry": 1}):
        refused = server.ask("auditor", "prove", **params)
        assert (refused.status_code // 100, "exit_code" in refused.json()) == (4, True), params
