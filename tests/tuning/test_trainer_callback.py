"""The callback in the real Trainer with a real PEFT adapter: nothing is lost by a resume."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainerState, TrainingArguments

from components.tuning.trainer_callback import DynamicEMACallback, live_digest

STEPS, MODEL = 6, "adapter_model.safetensors"
RULES = {
    "none": {},
    "fixed": {"beta": 0.9},
    "paper": {},
    "released": {},
    "scale_free": {"rho": 0.3, "smoothing": 0.5},
    "curvature": {"kappa": 100.0},
}


@pytest.fixture(autouse=True)
def _no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT writes no page about the adapter at each save, which takes longer than the training does."""
    monkeypatch.setattr(PeftModel, "create_or_update_model_card", lambda *_: None)


class Killed(Exception):
    """Stands for the machine going away."""


class KillAfterSave(TrainerCallback):
    def on_save(self, args, state, control, **_):
        raise Killed


@pytest.fixture
def model(tiny_folder: Path):
    """A factory of equal models with a fresh adapter whose two halves both have gradients."""

    def make(dtype: torch.dtype = torch.float32) -> PeftModel:
        torch.manual_seed(1)
        base = LlamaForCausalLM.from_pretrained(tiny_folder, dtype=dtype)
        config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"])
        adapted = get_peft_model(base, config, autocast_adapter_dtype=False)
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.02)
        return adapted

    return make


def rows(count: int = 24) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    tokens = [torch.randint(3, 200, (10,), generator=draw) for _ in range(count)]
    return [{"input_ids": t, "labels": t} for t in tokens]


def callback(model: PeftModel, rule: str, **options) -> DynamicEMACallback:
    draw = torch.Generator().manual_seed(2)
    importance = {n: torch.rand(p.shape, generator=draw) for n, p in model.named_parameters() if p.requires_grad}
    return DynamicEMACallback(rule, importance=importance if rule == "curvature" else None, **RULES[rule], **options)


def train(model: PeftModel, folder: Path, *callbacks: TrainerCallback, resume: Path | bool | None = None, **arguments):
    settings = {
        "max_steps": STEPS,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.5,
        "warmup_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **arguments,
    }
    trainer = Trainer(
        model, TrainingArguments(str(folder), **settings), train_dataset=rows(), callbacks=list(callbacks)
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def digest(tensors: list[Tensor]) -> str:
    return hashlib.sha256(b"".join(t.detach().float().numpy().tobytes() for t in tensors)).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[DynamicEMACallback, Path]]:
    """A run of each rule that nothing killed, and its folder; each is trained once."""
    runs: dict[str, tuple[DynamicEMACallback, Path]] = {}

    def run(rule: str, model: Callable[[], PeftModel]) -> tuple[DynamicEMACallback, Path]:
        if rule not in runs:
            runs[rule] = callback(model(), rule), tmp_path_factory.mktemp("whole")
            train(model(), runs[rule][1], runs[rule][0])
        return runs[rule]

    return run


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fatal", [2, 4])
def test_killed_at_a_checkpoint_and_resumed_is_as_if_undisturbed(rule, fatal, model, undisturbed, tmp_path) -> None:
    whole, folder = undisturbed(rule, model)
    first = model()
    with pytest.raises(Killed):
        train(first, tmp_path / "killed", callback(first, rule), KillAfterSave(), save_steps=fatal)
    second = model()
    resumed = callback(second, rule)
    train(second, tmp_path / "killed", resumed, resume=True)
    assert digest(resumed.ema.live) == digest(whole.ema.live)
    assert digest(resumed.ema.average) == digest(whole.ema.average)
    assert resumed.ema.history() == whole.ema.history()
    assert resumed.ema.fallbacks() == whole.ema.fallbacks()
    left, right = ((run / "ema" / MODEL).read_bytes() for run in (tmp_path / "killed", folder))
    assert left == right
    if rule not in ("none", "curvature"):  # these two depend on nothing but the live weights
        cold = cold_start(model(), rule, tmp_path / "killed" / f"checkpoint-{fatal}", tmp_path / "cold")
        assert digest(cold.ema.live) == digest(whole.ema.live)
        assert digest(cold.ema.average) != digest(whole.ema.average)


def cold_start(model: PeftModel, rule: str, checkpoint: Path, folder: Path) -> DynamicEMACallback:
    """What a callback without a memory would do: the run resumes, the EMA begins anew."""

    class Forgetful(DynamicEMACallback):
        def on_train_begin(self, args, state, control, **rest):
            begun, state.global_step = state.global_step, 0
            super().on_train_begin(args, state, control, **rest)
            state.global_step = begun

    cold = Forgetful(rule, **RULES[rule])
    train(model, folder, cold, resume=checkpoint)
    return cold


def test_theta_star_begins_before_the_first_step_and_follows_every_optimizer_step(model, tmp_path) -> None:
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, *, model, **_):
            seen.append([p.detach().double().clone() for p in model.parameters() if p.requires_grad])

    adapted = model()
    expected = [p.detach().double().clone() for p in adapted.parameters() if p.requires_grad]
    ema = callback(adapted, "fixed")
    train(adapted, tmp_path, ema, Watch())
    assert len(seen) == ema.ema.updates == STEPS  # two micro-batches each
    for live in seen:
        expected = [0.9 * e + 0.1 * p for e, p in zip(expected, live, strict=True)]
    for star, e in zip(ema.ema.average, expected, strict=True):
        torch.testing.assert_close(star.double(), e, rtol=1e-5, atol=1e-7)


def test_gradients_are_read_after_clipping(model, tmp_path) -> None:
    norms = []

    class Norms(DynamicEMACallback):
        def on_pre_optimizer_step(self, *args, **rest):
            super().on_pre_optimizer_step(*args, **rest)
            blocks = [block.present for block in self.ema._blocks]
            norms.append(torch.cat([b.flatten() for b in blocks]).norm().item())

    train(model(), tmp_path, Norms("paper"), max_grad_norm=1e-3)
    assert norms == pytest.approx([1e-3] * STEPS, rel=1e-2)


def test_the_ema_folder_is_an_adapter_that_answers_as_theta_star_does(model, tmp_path, tiny_folder) -> None:
    adapted = model()
    ema = callback(adapted, "scale_free")
    train(adapted, tmp_path, ema)
    tokens = rows(1)[0]["input_ids"][None]
    adapted.eval()
    with torch.no_grad(), ema.ema.swap():
        expected = adapted(tokens).logits
    with torch.no_grad():
        live = adapted(tokens).logits
    for folder in (tmp_path / "ema", tmp_path / f"checkpoint-{STEPS}" / "ema"):
        base = LlamaForCausalLM.from_pretrained(tiny_folder)
        loaded = PeftModel.from_pretrained(base, folder).eval()
        with torch.no_grad():
            torch.testing.assert_close(loaded(tokens).logits, expected)
    assert not torch.allclose(live, expected, atol=1e-4)
    own = load_file(tmp_path / f"checkpoint-{STEPS}" / MODEL)  # the Trainer's own file keeps the live weights
    assert all(torch.equal(own[n.replace(".default", "")], p) for n, p in zip(ema.ema.names, ema.ema.live, strict=True))


def test_the_trainer_evaluates_theta_star_within_swap(model, tmp_path) -> None:
    adapted = model()
    ema = callback(adapted, "fixed")
    trainer = train(adapted, tmp_path, ema)
    before = digest(ema.ema.live)
    with ema.ema.swap():
        protected = trainer.evaluate(rows(6))["eval_loss"]
    assert digest(ema.ema.live) == before
    assert trainer.evaluate(rows(6))["eval_loss"] != protected
    base = LlamaForCausalLM.from_pretrained(adapted.peft_config["default"].base_model_name_or_path)
    alone = Trainer(PeftModel.from_pretrained(base, tmp_path / "ema"), trainer.args)
    assert alone.evaluate(rows(6))["eval_loss"] == pytest.approx(protected, rel=1e-5)


def test_theta_star_beside_a_bfloat16_model_is_stored_in_float32(model, tmp_path) -> None:
    adapted = model(torch.bfloat16)
    ema = callback(adapted, "scale_free")
    train(adapted, tmp_path, ema)
    assert {p.dtype for p in ema.ema.live} == {torch.bfloat16}
    stored = load_file(tmp_path / "ema" / MODEL)
    assert {t.dtype for t in stored.values()} == {torch.float32}
    assert all(
        torch.equal(stored[n.replace(".default", "")], a) for n, a in zip(ema.ema.names, ema.ema.average, strict=True)
    )


def test_a_checkpoint_that_was_moved_is_found_by_its_name_or_refused(model, tmp_path) -> None:
    whole = callback(model(), "scale_free")
    train(model(), tmp_path / "a", whole)
    moved = shutil.move(tmp_path / "a" / "checkpoint-4", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"resumes at step 4, but no state .*checkpoint-4 has no dynamic_ema.json"):
        train(model(), tmp_path / "b", callback(model(), "scale_free"), resume=moved)
    resumed = callback(model(), "scale_free", checkpoint=moved)
    train(model(), tmp_path / "b", resumed, resume=moved)
    assert digest(resumed.ema.average) == digest(whole.ema.average)


def test_the_state_of_other_weights_is_refused(model, tmp_path) -> None:
    train(model(), tmp_path / "a", callback(model(), "fixed"))
    train(model(), tmp_path / "b", callback(model(), "fixed"), seed=7)
    with pytest.raises(ValueError, match="belongs to step 4 of other live weights"):
        train(
            model(),
            tmp_path / "a",
            callback(model(), "fixed", checkpoint=tmp_path / "b" / "checkpoint-4"),
            resume=shutil.move(tmp_path / "a" / "checkpoint-4", tmp_path / "checkpoint-4"),
        )


def test_another_rule_does_not_go_on_where_the_first_stopped(model, tmp_path) -> None:
    train(model(), tmp_path, callback(model(), "fixed"))
    with pytest.raises(ValueError, match="the state is of rule fixed"):
        train(model(), tmp_path, callback(model(), "paper"), resume=tmp_path / "checkpoint-4")


def test_restoring_the_states_of_callbacks_does_no_harm(model, tmp_path) -> None:
    """The Trainer then replaces callbacks that export a state by new objects; this one is left alone."""
    train(model(), tmp_path, callback(model(), "fixed"))
    ema = callback(model(), "fixed")
    trainer = train(
        model(), tmp_path, ema, resume=tmp_path / "checkpoint-4", restore_callback_states_from_checkpoint=True
    )
    assert ema in trainer.callback_handler.callbacks
    assert ema.ema.updates == STEPS


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused"])
def test_a_trainer_whose_scaler_skips_steps_averages_only_the_steps_taken(optimizer, model, tmp_path) -> None:
    """The loss scaling of float16 on a CPU, where the Trainer does not set it up by itself."""

    class Overflowing(Trainer):
        def compute_loss(self, *args, **rest):
            return super().compute_loss(*args, **rest) * (float("inf") if self.state.global_step in (0, 3, 4) else 1.0)

    adapted = model()
    ema, seen = callback(adapted, "fixed"), []
    expected = [p.detach().double().clone() for p in adapted.parameters() if p.requires_grad]

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, *, model, optimizer, **_):
            live = [p.detach().double().clone() for p in model.parameters() if p.requires_grad]
            seen.append(live)

    args = TrainingArguments(
        str(tmp_path),
        optim=optimizer,
        fp16=True,
        max_steps=8,
        learning_rate=1e-2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = Overflowing(adapted, args, train_dataset=rows(), callbacks=[ema, Watch()])
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(seen[2], seen[4], strict=True))
    assert ema.ema.updates == 5
    for live in (seen[i] for i in (1, 2, 5, 6, 7)):
        expected = [0.9 * e + 0.1 * p for e, p in zip(expected, live, strict=True)]
    for star, e in zip(ema.ema.average, expected, strict=True):
        torch.testing.assert_close(star.double(), e, rtol=1e-5, atol=1e-7)


def test_nothing_to_train_is_an_error(model, tmp_path) -> None:
    frozen = model().requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        DynamicEMACallback().on_train_begin(
            TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(max_steps=1), None, model=frozen
        )


def test_the_record_names_step_rule_and_live_weights(model, tmp_path) -> None:
    ema = callback(model(), "fixed")
    train(model(), tmp_path, ema)
    record = json.loads((tmp_path / f"checkpoint-{STEPS}" / "dynamic_ema.json").read_text())
    assert record == {"step": STEPS, "rule": "fixed", "live": live_digest(ema.ema)}
