import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.model.base import BaseModelError, load_base, reader_and_settings
from components.settings import BaseModelSettings


@pytest.fixture
def copy(tiny_folder, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def named(folder: Path) -> BaseModelSettings:
    return BaseModelSettings(name=str(folder), device="cpu")


def test_a_folder_loads_frozen_and_in_evaluation_mode(tiny_base) -> None:
    assert not any(p.requires_grad for p in tiny_base.model.parameters())
    assert not tiny_base.model.training
    assert tiny_base.model.dtype == torch.float32
    assert tiny_base.device.type == "cpu"
    assert {"attention", "device", "dtype", "torch", "transformers"} <= tiny_base.numerics.keys()


def test_the_digest_names_the_content_and_not_the_place(tiny_base, copy, tmp_path) -> None:
    again = load_base(named(copy), tmp_path / "store")
    assert again.digest == tiny_base.digest
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rope_theta": 20000.0}))
    assert load_base(named(copy), tmp_path / "store").digest != again.digest


def test_changed_weights_change_the_digest_although_the_fingerprint_is_remembered(copy, tmp_path) -> None:
    store = tmp_path / "store"
    first = load_base(named(copy), store)
    assert load_base(named(copy), store).digest == first.digest
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert load_base(named(copy), store).digest != first.digest


def test_number_type_is_part_of_the_numerics_and_not_of_the_model(tiny_base, load_tiny) -> None:
    half = load_tiny(dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half.digest == tiny_base.digest
    assert half.numerics_digest != tiny_base.numerics_digest


def test_pickled_weights_are_refused(copy, tmp_path) -> None:
    torch.save({"weight": torch.zeros(2)}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"no .safetensors weights"):
        load_base(named(copy), tmp_path / "store")


def test_pickled_weights_beside_a_stray_safetensors_file_are_not_loaded(copy, tmp_path) -> None:
    torch.save({"weight": torch.zeros(2)}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    with pytest.raises(BaseModelError, match="does not load as a safetensors causal language model"):
        load_base(named(copy), tmp_path / "store")


def test_code_in_a_model_folder_is_not_executed(copy, tmp_path) -> None:
    proof = tmp_path / "executed"
    (copy / "modeling_evil.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    config = json.loads((copy / "config.json").read_text())
    classes = {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.C"}
    config |= {"model_type": "evil", "auto_map": classes}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError):
        load_base(named(copy), tmp_path / "store")
    assert not proof.exists()


def test_a_folder_without_a_model_and_one_without_configuration(copy, tmp_path) -> None:
    with pytest.raises(BaseModelError, match=r"no .safetensors weights"):
        load_base(named(tmp_path), tmp_path / "store")
    (copy / "config.json").unlink()
    with pytest.raises(BaseModelError, match="does not load"):
        load_base(named(copy), tmp_path / "store")


def test_damaged_and_incomplete_weights_are_refused(copy, tmp_path) -> None:
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    save_file({n: t for n, t in tensors.items() if "layers.3" not in n}, weights, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="lack 9 tensors of its architecture"):
        load_base(named(copy), tmp_path / "store")
    save_file({n: t[:2] for n, t in tensors.items()}, weights, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="does not load"):
        load_base(named(copy), tmp_path / "store")
    weights.write_bytes(b"not safetensors")
    with pytest.raises(BaseModelError, match="does not load"):
        load_base(named(copy), tmp_path / "store")


def test_a_tokenizer_without_an_end_token_is_refused(copy, tmp_path) -> None:
    file = copy / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in config.items() if k != "eos_token"}))
    with pytest.raises(BaseModelError, match="no end token"):
        load_base(named(copy), tmp_path / "store")


@pytest.mark.parametrize("name", ["nobody/no-such-model", "a/b/c/not-a-hub-name", "no-such-folder-or-model"])
def test_a_missing_model_is_named(name, tmp_path) -> None:
    with pytest.raises(BaseModelError, match=f"{name}' is neither a folder nor a reachable hub model"):
        load_base(BaseModelSettings(name=name, device="cpu"), tmp_path)


def test_an_embedded_model_that_does_not_exist_is_named(tmp_path) -> None:
    with pytest.raises(BaseModelError, match="there is: embedded:smollm2-135m-instruct"):
        load_base(BaseModelSettings(name="embedded:other"), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error(load_tiny) -> None:
    with pytest.raises(BaseModelError, match="torch sees no GPU"):
        load_tiny(device="cuda")


@pytest.mark.parametrize(
    ("positions", "tokenizer", "tokens"),
    [(8192, None, 2048), (512, None, 512), (8192, 1024, 1024), (8192, 10**30, 2048), (1024, 4096, 1024)],
)
def test_auto_takes_the_models_context_up_to_2048_tokens(copy, tmp_path, positions, tokenizer, tokens) -> None:
    for name, key, value in (
        ("config.json", "max_position_embeddings", positions),
        ("tokenizer_config.json", "model_max_length", tokenizer),
    ):
        content = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps({**content, key: value} if value else content))
    auto = BaseModelSettings(name=str(copy), device="cpu")
    base = load_base(auto, tmp_path / "store")
    _, settings, context = reader_and_settings(auto, tmp_path / "store")
    assert base.settings.max_tokens == settings.max_tokens == settings.longest == tokens
    assert context == min(positions, tokenizer or positions)
    explicit = load_base(auto.model_copy(update={"max_tokens": 300}), tmp_path / "store")
    assert explicit.settings.max_tokens == 300
