"""A version answers alike everywhere: `lcia ask`, the exported folder and MLflow's model in a fresh process."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from small_loop import TASKS, Learnt, SmallLoop

from components.model.prompts import render
from components.model.workbench import Workbench
from components.serving import bundle
from components.serving.assistant import Assistant, WrongBaseModel
from components.serving.bundle import BundleRefused
from components.serving.vllm import start_arguments
from components.storage.objects import ObjectCorrupt
from components.tasks.snapshot import load_snapshot
from lcia.cli.text.versions import export as export_text
from lcia.inference import ask
from lcia.instance import Instance

UNRELATED = ("Quantify xylophones zealously", None)
FRESH_PROCESS = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/assistant@champion", model_config={"base_model": sys.argv[2]})
frame = pandas.DataFrame(json.loads(sys.argv[3]), columns=["instruction", "input"])
print(model.predict(frame).to_json(orient="records"))
"""


@pytest.fixture(scope="module")
def instance(learnt: Learnt) -> Instance:
    return learnt.loop.open()


@pytest.fixture(scope="module")
def requests(instance: Instance) -> list[tuple[str, str | None]]:
    """Test rows of every task, and one request that belongs nowhere."""
    entries = instance.pool(instance.champion().digest).tasks()
    rows = [row for entry in entries for row in load_snapshot(instance.store, entry.task).rows("test")[:3]]
    return [*((row.instruction, row.input) for row in rows), UNRELATED]


@pytest.fixture
def exported(instance: Instance, tmp_path: Path) -> Path:
    ask.export(instance, None, tmp_path / "out")
    return tmp_path / "out"


def test_the_exported_folder_answers_as_the_store_does(instance, requests, exported) -> None:
    bench = Workbench.load(instance.settings)
    digest = instance.champion().digest
    from_store = Assistant(bench, bundle.from_store(instance.store, digest)).answer(requests)
    from_folder = Assistant(bench, bundle.read(exported, digest)).answer(requests)
    assert from_store == from_folder
    assert from_store[-1].group is None
    assert {answer.nearest_task for answer in from_store[:-1]} == set(TASKS)
    asked = ask.ask(instance, *requests[0], None, base=False)
    assert (asked["answer"], asked["group"]) == (from_store[0].text, from_store[0].group)


def test_mlflow_answers_alike_in_a_fresh_process(instance, requests, learnt, tiny_folder, tmp_path) -> None:
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "OMP_NUM_THREADS")}
    told = [instance.settings.registry.tracking_uri, str(tiny_folder), json.dumps(requests)]
    made = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *told],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    expected = Assistant(Workbench.load(instance.settings), bundle.from_store(instance.store, learnt.digests[-1]))
    answers = [answer.text for answer in expected.answer(requests)]
    assert [row["answer"] for row in json.loads(made.stdout.splitlines()[-1])] == answers


@pytest.mark.parametrize("file", ["manifest.json", "settings.json", "tasks/*.json", "adapters/g1/*.safetensors"])
def test_one_changed_byte_anywhere_is_refused(instance, exported, file) -> None:
    path = next(exported.glob(file))
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleRefused, match=r"altered|no exported version|not the JSON"):
        bundle.read(exported, instance.champion().digest)


def test_another_version_and_an_incomplete_folder_are_refused(exported, learnt) -> None:
    with pytest.raises(BundleRefused, match="expected"):
        bundle.read(exported, learnt.digests[0])
    next(exported.glob("tasks/*.json")).unlink()
    with pytest.raises(BundleRefused, match="no file tasks/"):
        bundle.read(exported)


def test_a_folder_that_holds_something_is_left_alone(instance, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BundleRefused, match="not an empty folder"):
        ask.export(instance, None, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_another_base_model_is_refused(instance, exported) -> None:
    read = bundle.read(exported)
    bench = Workbench.load(instance.settings)
    other = bench.base.__class__(**{**vars(bench.base), "digest": "0" * 64})
    with pytest.raises(WrongBaseModel, match="was tuned on base model"):
        Assistant(Workbench(other, bench.slot, bench.trunk), read)


def test_adapters_are_plain_peft_folders(instance, exported) -> None:
    from peft import PeftConfig, get_peft_model_state_dict
    from peft import PeftModel as Peft
    from transformers import AutoModelForCausalLM

    read = bundle.read(exported)
    group = read.pool.groups[0].id
    assert PeftConfig.from_pretrained(str(exported / "adapters" / group)).r == instance.settings.adapter.rank
    model = AutoModelForCausalLM.from_pretrained(instance.settings.base_model.name)
    loaded = get_peft_model_state_dict(Peft.from_pretrained(model, str(exported / "adapters" / group)))
    assert loaded.keys() == read.adapters[group].keys()


@pytest.mark.parametrize("at", ["here", "elsewhere"])
def test_an_adapter_loads_with_its_base_model_by_the_folder_alone(
    instance, exported, tmp_path, monkeypatch, at
) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM

    folder = exported
    if at == "elsewhere":
        folder = exported.rename(tmp_path / "moved")
        monkeypatch.chdir("/")
    digest = instance.champion().digest
    read = bundle.read(folder, digest)
    row = load_snapshot(instance.store, read.pool.tasks()[0].task).rows("test")[0]
    bench = Workbench.load(instance.settings)
    ids = torch.tensor([render(bench.base.reader, bench.base.settings, row.instruction, row.input, row.output).tokens])
    for group in read.pool.groups:
        model = AutoPeftModelForCausalLM.from_pretrained(folder / "adapters" / group.id)
        bench.slot.load(read.adapters[group.id])
        with torch.no_grad():
            assert torch.allclose(model(input_ids=ids).logits, bench.slot.model(input_ids=ids).logits, atol=1e-4)
        beside = json.loads((folder / "adapters" / group.id / "base_model.json").read_text())
        assert beside == {"name": instance.settings.base_model.name, "revision": None, "sha256": bench.base.digest}


def test_a_base_model_from_a_hub_is_named_with_its_revision(instance, tmp_path) -> None:
    version = with_settings(instance, {"name": "some/model", "revision": "abc123"})
    bundle.write(instance.store, version, tmp_path / "out")
    config = json.loads(next((tmp_path / "out" / "adapters").glob("*/adapter_config.json")).read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/model", "abc123")
    assert bundle.read(tmp_path / "out", version).version == version


def test_the_embedded_base_model_is_named_where_it_is_converted_to(instance, tmp_path) -> None:
    version = with_settings(instance, {"name": "embedded:smollm2-135m-instruct"})
    bundle.write(instance.store, version, tmp_path / "out", tmp_path / "models")
    config = json.loads(next((tmp_path / "out" / "adapters").glob("*/adapter_config.json")).read_text())
    read = bundle.read(tmp_path / "out", version)
    assert config["base_model_name_or_path"] == str(tmp_path / "models" / read.pool.base_model)


def with_settings(instance: Instance, base_model: dict) -> str:
    """The champion's manifest under settings that name another base model."""
    manifest = instance.store.get_json(instance.champion().digest)
    settings = instance.store.get_json(manifest["config"])
    settings["base_model"] |= base_model
    return instance.store.put_json({**manifest, "config": instance.store.put_json(settings)})


@pytest.mark.parametrize(
    "change",
    [
        {"base_model_name_or_path": "evil/model"},
        {"base_model_name_or_path": "/tmp/evil"},
        {"revision": "main"},
        {"r": 64},
        {"base_model_name_or_path": None},
    ],
)
def test_an_altered_adapter_config_is_refused(exported, change) -> None:
    path = next(exported.glob("adapters/*/adapter_config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}, sort_keys=True, indent=1))
    with pytest.raises(BundleRefused, match=r"altered|not the one that was exported"):
        bundle.read(exported)


def test_folders_of_the_release_before_are_still_read(instance, exported) -> None:
    read = bundle.read(exported)
    for group in read.pool.groups:  # as it was: PEFT's files from the store, and nothing beside them
        folder = exported / "adapters" / group.id
        for file in folder.iterdir():
            file.unlink()
        for name, digest in instance.store.folder_files(group.adapter).items():
            (folder / name).write_bytes(instance.store.get(digest))
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"].startswith("sha256:")
    again = bundle.read(exported, read.version)
    assert again.pool == read.pool
    assert again.adapters.keys() == read.adapters.keys()


def test_vllm_is_started_with_every_adapter(instance, exported) -> None:
    line = start_arguments(bundle.read(exported), exported, Path("models"))
    assert line.startswith(f"vllm serve {instance.settings.base_model.name} --enable-lora --max-lora-rank 8")
    assert all(f"{g.id}={exported}/adapters/{g.id}" in line for g in bundle.read(exported).pool.groups)


def test_vllm_s_command_and_requests_name_the_contract(instance, tmp_path) -> None:
    value = ask.export(instance, None, tmp_path / "out")
    words = shlex.split(value["vllm"])
    options = dict(pairwise(words))
    assert options["--dtype"] == instance.settings.base_model.dtype == "float32"
    assert options["--generation-config"] == "vllm"
    limits = {"movie_sentiment": None, "product_sentiment": None, "passive_voice": 48}  # the first two choose
    assert {each["task"]: each.get("max_tokens") for each in value["requests"]} == {**limits, None: 64}
    assert json.loads(options["--override-generation-config"]) == {"temperature": 0.0, "max_new_tokens": 64}
    shown = export_text(value)
    assert f"a system message: {instance.settings.base_model.system_prompt}" in shown
    group = next(
        g.id for g in instance.pool(instance.champion().digest).groups if any(t.name == TASKS[2] for t in g.tasks)
    )
    assert f"for passive_voice: model {group}, max_tokens 48" in shown
    assert "for movie_sentiment: model" in shown
    assert "the likeliest of the task's choices" in shown
    assert "<|im_end|>, as that token" in shown
    assert f"base model: {instance.settings.base_model.name}\n" in shown
    assert not value["base_model"]["absent"]
    assert "not there yet" in export_text({**value, "base_model": {**value["base_model"], "absent": True}})


def test_vllm_loads_the_revision_and_the_quantization_that_were_tuned_on(instance, tmp_path) -> None:
    changes = {"name": "some/model", "revision": "abc123", "dtype": "bfloat16", "quantization": "nf4"}
    version = with_settings(instance, changes)
    bundle.write(instance.store, version, tmp_path / "out")
    line = start_arguments(bundle.read(tmp_path / "out"), tmp_path / "out", Path("models"))
    assert line.startswith("vllm serve some/model --enable-lora")
    for part in ("--revision abc123", "--dtype bfloat16", "--quantization bitsandbytes"):
        assert f" {part} " in line


def test_an_altered_object_is_not_exported(champion: SmallLoop, tmp_path) -> None:
    instance = champion.open()
    pool = instance.pool(instance.champion().digest)
    digest = instance.store.folder_files(pool.groups[0].adapter)["adapter_model.safetensors"]
    stored = next(champion.home.rglob(digest))
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(ObjectCorrupt):
        ask.export(instance, None, tmp_path / "out")
