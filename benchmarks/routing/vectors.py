"""Write the vectors of the packaged general texts by the packaged sentence model, in whole numbers of 8 bits.

python -m benchmarks.routing.vectors       # after the texts or the model changed
"""

import numpy as np
from safetensors.numpy import save_file

from components.grouping.embedding import general_texts, origin
from components.grouping.general import VECTORS
from components.grouping.sentence_model import PACKAGED, SentenceModel


def main() -> None:
    model = SentenceModel.load(next(iter(PACKAGED)))
    rows = {name: model.vectors(texts) for name, texts in general_texts().items()}
    scale = 127 / max(np.abs(each).max() for each in rows.values())
    tensors = {name: np.round(each * scale).astype(np.int8) for name, each in rows.items()}
    save_file({**tensors, "scale": np.array([scale], dtype=np.float32)}, VECTORS, metadata=origin(model))


if __name__ == "__main__":
    main()
