"""Real vLLM servers of the tests' own, on the CPU; LCIA_VLLM_PYTHON names a Python with vLLM (docs/gateway.md)."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from components.serving.vllm import RUNTIME_LOADING, gateway_arguments
from components.settings import Settings

PYTHON = "LCIA_VLLM_PYTHON"
ON_A_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    RUNTIME_LOADING: "True",
}
_START_SECONDS = 400


class VllmProcess:
    """Started, killed and started again at will, always at the same address."""

    def __init__(self, folder: Path, settings: Settings, base_model: str, *options: str) -> None:
        """`folder` gets its log; `base_model` is the digest of the settings' base model."""
        self._log = folder / "vllm.log"
        folder.mkdir(parents=True, exist_ok=True)
        name, own = gateway_arguments(settings, base_model, Path(settings.storage.models), 2)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{port}"
        self._command = [
            *(os.environ[PYTHON], "-m", "vllm.entrypoints.openai.api_server", "--model", name, *own),
            *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **ON_A_CPU}, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + _START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return
            time.sleep(0.5)
        raise RuntimeError(f"vLLM did not start: {self._log.read_text(encoding='utf-8', errors='replace')[-4000:]}")

    def send(self, number: int) -> None:
        """Send a signal to all its processes."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it as a machine that loses its power does."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None
