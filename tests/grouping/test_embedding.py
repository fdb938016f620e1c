import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.grouping.embedding import EmbeddingEncoder, general_texts, general_vectors, origin
from components.grouping.encoders import CALIBRATED, kind_of, thresholds
from components.grouping.general import VECTORS, foreign_requests, general_inputs, general_requests
from components.grouping.pool import EncoderStateError, GroupTask, Pool
from components.grouping.router import Router, decide, extend
from components.grouping.sentence_model import PACKAGED, EncoderModelError, SentenceModel
from components.grouping.space import Space
from components.settings import GroupingSettings

PACKAGE = next(iter(PACKAGED))
TEXTS = (
    "Negate this sentence.",
    "Rewrite it in the passive voice.",
    "",
    "Is the film review positive?",
    "日本語 \ud800",
)


def save_encoder(folder: Path, seed: int = 0) -> Path:
    """A random BERT of two narrow layers with a word tokenizer, saved as any encoder is."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "negate",
        "this",
        "sentence",
        "rewrite",
        "it",
        "in",
        "the",
        "passive",
        "voice",
        "is",
        "film",
        "review",
        "positive",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def learn(pool: Pool, name: str, texts: tuple[str, ...], settings: GroupingSettings) -> Pool:
    return extend(
        pool, GroupTask(f"{len(pool.tasks()):064x}", name, texts), group=None, adapter="f" * 64, curvature=None,
        parent=None, config="c" * 64, settings=settings,
    )  # fmt: skip


def test_encoding_is_the_unit_mean_of_the_token_vectors(folder):
    """The oracle: one text at a time, no padding, no mask."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = SentenceModel.load(str(folder)).vectors(TEXTS)
    assert rows.shape == (len(TEXTS), 16)
    for text, row in zip(TEXTS[:4], rows, strict=False):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().mean(0)
        assert np.allclose(row, (mean / mean.norm()).numpy(), atol=1e-6)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)


def test_long_texts_are_cut_and_company_changes_nothing(folder):
    long = "negate " * 600
    alone = SentenceModel.load(str(folder)).vectors([long])
    fresh = SentenceModel(folder, "another instance")
    assert np.allclose(fresh.vectors([long, *TEXTS])[0], alone[0], atol=1e-6)


def test_the_digest_names_the_content_not_the_place(folder, tmp_path):
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("notes")
    first = EmbeddingEncoder.fit(str(folder))
    digest = first.model.digest
    assert SentenceModel.load(str(copy)).digest == digest
    assert SentenceModel.load(str(save_encoder(tmp_path / "other", seed=1))).digest != digest
    state = json.loads(json.dumps(first.to_json()))
    assert str(folder) not in json.dumps(state)
    again = EmbeddingEncoder.from_json(state, str(copy))
    assert again.model.digest == digest
    assert np.array_equal(again.encode(TEXTS[:2]), first.encode(TEXTS[:2]))


def test_another_or_missing_model_is_refused(folder, tmp_path):
    state = EmbeddingEncoder.fit(str(folder)).to_json()
    other = save_encoder(tmp_path / "other", seed=1)
    with pytest.raises(EncoderModelError, match=r"grouping\.encoder_model name the folder of the right one"):
        EmbeddingEncoder.from_json(state, str(other))
    with pytest.raises(EncoderModelError, match="is no folder"):
        EmbeddingEncoder.from_json(state, str(tmp_path / "nowhere"))
    with pytest.raises(EncoderStateError, match="use the release"):
        EmbeddingEncoder.from_json({**state, "pooling": "max-9"}, str(folder))


def test_unsafe_broken_or_incomplete_models_are_refused(folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    pickled = Path(shutil.copytree(folder, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(EncoderModelError, match=r"no \.safetensors weights"):
        SentenceModel.load(str(pickled))
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderModelError, match="does not load"):
        SentenceModel.load(str(broken)).vectors(TEXTS)
    partial = Path(shutil.copytree(folder, tmp_path / "partial"))
    weights = load_file(partial / "model.safetensors")
    weights.pop("encoder.layer.0.attention.self.query.weight")
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderModelError, match="drawn at random"):
        SentenceModel.load(str(partial)).vectors(TEXTS)


def test_a_pool_names_what_routes_it_and_follows_a_moved_model(folder, tmp_path):
    import shutil

    settings = GroupingSettings(encoder="embedding", encoder_model=str(folder), request_threshold=0.99)
    pool = learn(Pool.empty("assistant", "b" * 64), "negate", TEXTS[:1], settings)
    pool = learn(pool, "passive", TEXTS[1:2], settings)
    assert pool.router["encoder"]["model"] == SentenceModel.load(str(folder)).digest
    assert pool.router["request_threshold"] == 0.99
    assert Router.of(pool, settings).route(TEXTS[0]).group == "g1"
    moved = settings.model_copy(update={"encoder_model": str(shutil.copytree(folder, tmp_path / "moved"))})
    texts = ["voice passive the in it rewrite", "negate this", "film"]
    assert Router.of(pool, moved).route_many(texts) == Router.of(pool, settings).route_many(texts)
    with pytest.raises(EncoderModelError):
        Router.of(pool, GroupingSettings(encoder_model=str(save_encoder(tmp_path / "other", seed=1))))


def test_each_encoder_has_its_own_thresholds_and_settings_win():
    assert thresholds(GroupingSettings(), "embedding") == CALIBRATED["embedding"]
    assert thresholds(GroupingSettings(), "tfidf") == CALIBRATED["tfidf"]
    own = thresholds(GroupingSettings(threshold=0.0), "embedding")
    assert (own.threshold, own.review_band) == (0.0, CALIBRATED["embedding"].review_band)


JAPANESE = (
    "この映画の感想が肯定的か否定的かを判断してください。",
    "次の映画レビューは好意的ですか、それとも批判的ですか。",
)


def test_the_default_counts_words_where_the_packaged_model_knows_none(folder):
    auto = GroupingSettings()
    assert kind_of(auto, ["Negate this sentence.", *JAPANESE[:1]]) == "embedding"
    assert kind_of(auto, ["Negate this sentence.", *JAPANESE]) == "tfidf"
    assert kind_of(GroupingSettings(encoder="embedding"), JAPANESE) == "embedding"
    assert kind_of(GroupingSettings(encoder_model=str(folder)), JAPANESE) == "embedding"  # it may know Japanese


@pytest.mark.parametrize("encoder", ["tfidf", "embedding"])
def test_a_pool_in_another_language_lets_in_no_more_than_its_share(encoder):
    """To a model of English all Japanese texts look alike; 15 requests that have nothing to do with films."""
    pool = learn(Pool.empty("assistant", "b" * 64), "film", JAPANESE, GroupingSettings(encoder=encoder))
    foreign = [
        "カレーの作り方を教えて", "東京から大阪まで何時間?", "二次方程式の解の公式は?", "猫の俳句を作って",
        "明日の天気は?",
        "お詫びのメールを書いて", "英語に翻訳して", "誤字を直して", "世界で一番高い山は?", "ダイエットのコツは?",
        "円周率を10桁まで", "結婚式のスピーチ", "この表を合計して", "履歴書の書き方", "引っ越しの手順は?",
    ]  # fmt: skip
    assert sum(route.group is not None for route in Router.of(pool).route_many(foreign)) <= 1


def test_general_requests_come_in_several_languages():
    assert {"ja", "de", "fr"} <= foreign_requests().keys()
    for texts in foreign_requests().values():
        assert len(set(texts)) == len(texts) >= 100


def test_tfidf_grouping_and_routing_need_no_torch():
    code = (
        "import sys\n"
        "from components.grouping.pool import GroupTask, Pool\n"
        "from components.grouping.router import Router, decide, extend\n"
        "from components.settings import GroupingSettings\n"
        "s = GroupingSettings(encoder='tfidf')\n"
        "p = Pool.empty('assistant', 'b' * 64)\n"
        "decide(p, ['Negate this.'], s)\n"
        "p = extend(p, GroupTask('1' * 64, 'negate', ('Negate this.',)), group=None, adapter='f' * 64,\n"
        "           curvature=None, parent=None, config='c' * 64, settings=s)\n"
        "assert Router.of(p).route('Negate this now.').group == 'g1'\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'a heavy library was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_packaged_model_that_is_absent_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderModelError, match="install it"):
        SentenceModel.load(PACKAGE)


def test_the_packaged_model_tells_work_apart_that_shares_no_word():
    settings = GroupingSettings(encoder="embedding")
    pool = learn(
        Pool.empty("assistant", "b" * 64), "sentiment", ("Is the film review positive or negative?",), settings
    )
    pool = learn(pool, "passive", ("Rewrite the sentence in the passive voice.",), settings)
    decision = decide(pool, ["Did the critic enjoy this movie, yes or no?"], settings)
    assert decision.encoder == "embedding"
    assert decision.scores[0].nearest_task == "sentiment"
    router = Router.from_manifest(json.loads(json.dumps(pool.to_manifest())))
    assert router.route("Tell me the polarity of this movie critique: positive or negative?").group == "g1"
    assert router.route("What is the boiling point of ethanol?").group is None


def test_control_tokens_in_an_instruction_are_text(folder):
    """The encoder's words know no brackets: "[PAD]" is what "[pad]" is, unknown letters, and no padding."""
    texts = ["negate [PAD] this [UNK]", "negate [pad] this [unk]"]
    spelled, unknown = SentenceModel.load(str(folder)).vectors(texts)
    assert np.allclose(spelled, unknown)


def test_the_stored_vectors_are_those_of_the_packaged_model():
    """A sample: a change of the texts, of the model or of its reading must write the file again."""
    model = SentenceModel.load(PACKAGE)
    from safetensors import safe_open

    with safe_open(VECTORS, "numpy") as file:
        assert file.metadata() == origin(model), "run `python -m benchmarks.routing.vectors`"
    stored = dict(zip(general_texts(), general_vectors(model), strict=True))
    for name, texts in general_texts().items():
        places = range(0, len(texts), len(texts) // 6)
        fresh = model.vectors([texts[i] for i in places])
        assert np.abs(stored[name][list(places)] - fresh).max() < 0.002


def test_general_texts_are_many_and_none_stands_twice():
    for texts, least in ((general_requests(), 1500), (general_inputs(), 500)):
        assert len(set(texts)) == len(texts) >= least
        assert all(text == text.strip() != "" for text in texts)


def test_a_space_evens_out_what_general_texts_have_in_common():
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((4000, 60)) * np.linspace(5, 0.5, 60) + 3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    space = Space.fit(vectors)
    moved = space.transform(vectors)
    before, after = (np.linalg.eigvalsh(np.cov(rows.T)) for rows in (vectors, moved))
    assert after[-40:].max() / after[-40:].min() < 2.5 < before[-40:].max() / before[-40:].min()
    assert np.abs(moved.mean(axis=0)).max() < 0.05
    assert np.median(after) == pytest.approx(1, abs=0.5)


def test_a_space_comes_back_to_the_bit():
    vectors = np.random.default_rng(1).standard_normal((200, 50)) / 7
    space = Space.fit(vectors)
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert np.array_equal(again.transform(vectors), space.transform(vectors))
    with pytest.raises(EncoderStateError, match="restore the manifest"):
        Space.from_json({**space.to_json(), "factors": [1.0, 2.0]})
