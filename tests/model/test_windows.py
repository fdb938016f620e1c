"""Layers with a sliding window: the split model, packs and decoding against the model's own forward pass."""

import shutil

import pytest
import torch

from components.model.adapters import AdapterSlot
from components.model.base import load_base
from components.model.generation import Begun, continue_greedy, generate_greedy
from components.model.stepwise import decode
from components.model.trunk import Trunk, windows
from components.settings import AdapterSettings, BaseModelSettings

WINDOW = 16
SHAPE = {
    "vocab_size": 703, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.15, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 2, "sliding_window": WINDOW,
}  # fmt: skip
ARCHITECTURES = {
    "Mistral": {},
    "Gemma2": {"head_dim": 12},
    "Gemma3": {"head_dim": 12, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "Qwen2": {"use_sliding_window": True, "max_window_layers": 1},
}
EXPECTED = {
    "Mistral": {"full_attention": WINDOW},
    "Gemma2": {"full_attention": None, "sliding_attention": WINDOW},
    "Gemma3": {"full_attention": None, "sliding_attention": WINDOW},
    "Qwen2": {"full_attention": None, "sliding_attention": WINDOW},
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(architecture, tiny_folder, tmp_path_factory):
    import transformers

    folder = tmp_path_factory.mktemp("windows") / architecture
    shutil.copytree(tiny_folder, folder)
    config, model = (
        getattr(transformers, f"{architecture}{'Text' if name and architecture == 'Gemma3' else ''}{kind}")
        for name, kind in ((True, "Config"), (False, "ForCausalLM"))
    )
    torch.manual_seed(0)
    model(config(**SHAPE, **ARCHITECTURES[architecture])).save_pretrained(folder)
    return load_base(BaseModelSettings(name=str(folder), device="cpu", threads=1), folder / "store")


@pytest.fixture(scope="module")
def trunk(base):
    slot = AdapterSlot(base, AdapterSettings(rank=4, alpha=8, top_layers=2))
    trunk = Trunk(base, slot)
    slot.initialise(0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in slot.parameters.values():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return trunk


def rows(*lengths: int) -> list[tuple[int, ...]]:
    """Rows that share their first 30 tokens, but for the last row; all others come in one pack."""
    draw = torch.Generator().manual_seed(3)
    start = tuple(torch.randint(3, 700, (30,), generator=draw).tolist())
    out = [(*start, *torch.randint(3, 700, (n - 30,), generator=draw).tolist()) for n in lengths]
    return [*out, tuple(torch.randint(3, 700, (45,), generator=draw).tolist())]


def test_the_kinds_of_layers_are_known(architecture, base, trunk) -> None:
    assert windows(base.model.get_decoder()) == EXPECTED[architecture]
    assert trunk.split, "no need to run it whole"


@torch.no_grad()
def test_the_split_model_is_the_whole_one_beyond_the_window(base, trunk) -> None:
    tokens = rows(60, 33, 47, 31)
    decoder = base.model.get_decoder()
    for row, ours in zip(tokens, trunk.outputs(trunk.states(tokens, 8)), strict=True):
        theirs = decoder(input_ids=torch.tensor([row])).last_hidden_state[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def generated(base, prompt, limit: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    out = base.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, eos_token_id=702,
        pad_token_id=0,
    )  # fmt: skip
    return tuple(out[0, len(prompt) :].tolist())


@pytest.mark.parametrize("batch_rows", [1, 5])
def test_decoding_is_the_models_own_beyond_the_window(base, trunk, batch_rows) -> None:
    prompts = rows(60, 33, 47, 31)
    expected = [generated(base, prompt, 20) for prompt in prompts]
    assert [each.tokens for each in generate_greedy(base.model, prompts, 20, (702,), batch_rows)] == expected
    one_by_one = [tuple(step.token for step in decode(base.model, prompt, 20, (702,))) for prompt in prompts]
    assert one_by_one == expected


@torch.no_grad()
def test_going_on_from_the_trunks_past_is_the_models_own(base, trunk) -> None:
    prompts = rows(60, 33, 47, 31)
    states = trunk.states(prompts, 8, keep_past=True)
    upper: list = []
    firsts = [int(base.model.lm_head(out[-1]).argmax()) for out in trunk.outputs(states, upper)]
    begun = [
        Begun(first, len(prompt), (state.past, past), 19)
        for first, prompt, state, past in zip(firsts, prompts, states, upper, strict=True)
    ]
    results = continue_greedy(base.model, begun, (702,), 3)
    ours = [(first, *result.tokens) for first, result in zip(firsts, results, strict=True)]
    assert ours == [generated(base, prompt, 20) for prompt in prompts]


def test_a_window_that_is_not_kept_shows_at_rows_beyond_it(base, trunk, monkeypatch) -> None:
    """Short rows would not tell: the whole model then runs each time."""
    plain = Trunk._mask
    monkeypatch.setattr(Trunk, "_mask", lambda self, pack, _: plain(self, pack, None))
    assert not trunk._is_exact()


def test_layers_of_another_kind_are_never_split(base) -> None:
    decoder = base.model.get_decoder()
    before = decoder.config
    decoder.config = type(before)(**{**before.to_dict(), "layer_types": ["full_attention"] * 4})
    try:
        decoder.config.layer_types = ["linear_attention", *["full_attention"] * 3]
        assert windows(decoder) is None
    finally:
        decoder.config = before
