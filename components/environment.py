"""Environment for our own processes: the variables they need to run, and none of our secrets."""

import os
import re
from collections.abc import Mapping

_ALLOWED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LANGUAGE|LC_\w+|LD_LIBRARY_PATH|DYLD_\w+|VIRTUAL_ENV|PYTHON\w+"
    r"|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|[A-Z]+_NUM_THREADS|OMP_\w+|MKL_\w+|KMP_\w+|GOMP_\w+|CUDA_\w+|NVIDIA_\w+|NCCL_\w+|TORCH\w*|PYTORCH_\w+"
    r"|HF_HUB_OFFLINE|HF_HOME|HF_HUB_CACHE|HF_HUB_DISABLE_TELEMETRY|TRANSFORMERS_\w+|TOKENIZERS_PARALLELISM|TQDM_DISABLE"
    r"|MPLCONFIGDIR|DO_NOT_TRACK|ANONYMIZED_TELEMETRY|GX_ANALYTICS_ENABLED"
    r"|COV_CORE_\w+|COVERAGE_\w+"
)
_STORE = re.compile(r"(AWS|S3|FSSPEC|GOOGLE|GCE|GCS|AZURE)_\w+|(?:no|https?|all)_proxy|(?:NO|HTTPS?|ALL)_PROXY")
"""Variables for access to an object store in a bucket."""


def without_secrets(environment: Mapping[str, str] = os.environ, *, store: bool = False) -> dict[str, str]:
    """Variables of `environment` for a process that needs no secret; with `store` also those for a bucket.

    A list of what may pass, not of what may not: nobody knows the names of all secrets.
    """
    return {
        name: value
        for name, value in environment.items()
        if _ALLOWED.fullmatch(name) or (store and _STORE.fullmatch(name))
    }
