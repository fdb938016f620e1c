"""The neutral adapter leaves every logit of the base model as it is."""

import json
from pathlib import Path

import pytest
import torch

from components.model.adapters import CONFIG, WEIGHTS, AdapterError, digest_of_files, store_adapter
from components.serving.neutral import neutral_files, write_neutral


@pytest.fixture
def folder(tiny_bench, store, tmp_path) -> Path:
    """An adapter in a folder of its digest's name."""
    tensors = {name: torch.randn(each.shape) for name, each in tiny_bench.slot.tensors().items()}
    digest = store_adapter(store, tiny_bench.slot.files(tensors, tiny_bench.base.digest))
    return store.get_folder(digest, tmp_path / "adapters" / digest)


def test_peft_loads_it_and_the_base_model_answers_as_ever(load_tiny, folder, tmp_path):
    from peft import PeftModel

    base = load_tiny()
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        before = base.model(input_ids=ids).logits
        write_neutral(neutral_files(folder), tmp_path / "neutral")
        neutral = PeftModel.from_pretrained(base.model, str(tmp_path / "neutral"))
        assert torch.equal(neutral(input_ids=ids).logits, before)
        other = PeftModel.from_pretrained(load_tiny().model, str(folder))
        assert not torch.equal(other(input_ids=ids).logits, before)


def test_it_is_small_and_has_one_digest(folder, store, tmp_path):
    files = neutral_files(folder)
    assert len(files[WEIGHTS]) < len((folder / WEIGHTS).read_bytes()) / 4
    assert files == neutral_files(folder)
    write_neutral(files, tmp_path / "neutral")
    assert store.put_folder(tmp_path / "neutral") == digest_of_files(files)
    write_neutral({}, tmp_path / "neutral")  # it is there
    assert {path.name for path in (tmp_path / "neutral").iterdir()} == {CONFIG, WEIGHTS}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".neutral")] == []


def test_folders_without_lora_are_refused(folder, tmp_path):
    from safetensors.torch import save

    with pytest.raises(AdapterError, match="holds no adapter"):
        neutral_files(tmp_path / "absent")
    (folder / WEIGHTS).write_bytes(save({"projector.weight": torch.zeros(2)}))
    (folder / CONFIG).write_text(json.dumps({}))
    with pytest.raises(AdapterError, match="no tensor of LoRA"):
        neutral_files(folder)
