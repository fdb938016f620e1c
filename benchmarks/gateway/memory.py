"""Memory of a gateway with 2, 20 and 100 groups loaded, engine `embedded`, each in a process of its own.

    python -m benchmarks.gateway.memory --groups 20

The groups' adapters are those of the champion of LCIA_HOME with other numbers; manifest and objects are real, in a
store of their own, and the decision is signed with the key of that state.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gateway.decided import SignedSource
from benchmarks.gateway.load import Client, machine_load, wait_for
from components.grouping.pool import GroupTask, Pool
from components.grouping.router import extend
from components.model.adapters import WEIGHTS
from components.serving import bundle
from components.settings.loading import home, load_settings
from components.storage.objects import ObjectStore
from lcia.gateway.server import in_background
from lcia.instance import Instance

SIZES = (2, 20, 100)
NUMBER = 1000
MEBI = 2**20


def version_of(instance: Instance, store: ObjectStore, count: int) -> str:
    """Digest of a version with so many groups, each with an adapter and a task of its own."""
    champion = instance.champion()
    if champion is None:
        raise SystemExit("there is no champion; learn and approve a task first, or run `lcia demo`")
    origin = instance.store
    pool = Pool.from_manifest(origin.get_json(champion.digest))
    settings = bundle.from_store(origin, champion.digest).settings
    (first, *_), files = pool.groups, origin.folder_files(pool.groups[0].adapter)
    task = origin.get_json(first.tasks[0].task)
    made = replace(
        Pool.empty(pool.assistant, pool.base_model), config=store.put_json(origin.get_json(str(pool.config)))
    )
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            for name, digest in files.items():
                content = origin.get(digest)
                Path(folder, name).write_bytes(_changed(content, number) if name == WEIGHTS else content)
            adapter = store.put_folder(Path(folder))
        snapshot = store.put_json({**task, "name": f"task_{number}"})
        for digest in _digests(task):
            if origin.exists(digest) and not store.exists(digest):
                store.put(origin.get(digest))
        made = extend(
            made,
            GroupTask(snapshot, f"task_{number}", (f"Do work number {number} with the text.",)),
            group=None,
            adapter=adapter,
            curvature=None,
            parent=None,
            config=str(made.config),
            settings=settings.grouping.model_copy(update={"rule": "per_task"}),
        )
    return store.put_json(made.to_manifest())


def _changed(content: bytes, number: int) -> bytes:
    """Weights with other numbers of the same kind: the last bytes are those of a float."""
    return content[:-2] + number.to_bytes(2, "little")


def _digests(value: object) -> list[str]:
    return re.findall(r"[0-9a-f]{64}", json.dumps(value))


def own(groups: int) -> dict[str, Any]:
    """Memory of this process with a gateway of so many groups, in MiB."""
    settings = load_settings(None, (), {}, home())
    instance = Instance.open(home(), settings)
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(Path(folder, "objects").as_uri())
        digest = version_of(instance, store, groups)
        source = SignedSource(instance, store)
        source.decide(NUMBER, digest)
        gateway = settings.gateway.model_copy(update={"cache": f"{folder}/cache"})
        before, began = _resident(), time.monotonic()
        with in_background(settings.model_copy(update={"gateway": gateway}), source) as (address, running):
            if not wait_for(lambda: running.follower.ready and running.follower.champion is not None, 600):
                raise SystemExit(running.follower.problem)
            ready = time.monotonic() - began
            client = Client(address)
            turn = {"messages": [{"role": "user", "content": "Do work number 1 with the text.\nA text."}]}
            replies = [client.ask(n, {"model": f"assistant:task_{n % groups}", **turn}) for n in range(4)]
            if not all(reply.ok for reply in replies):
                raise SystemExit(replies[0].text)
            return {
                "groups": groups,
                "adapters": running.engine.report["adapters"],
                "before_mib": round(before, 1),
                "resident_mib": round(_resident(), 1),
                "peak_mib": round(_peak(), 1),
                "adapter_file_mib": round(_file(store, digest) / MEBI, 2),
                "ready_s": round(ready, 1),
                "load": machine_load(),
            }


def _file(store: ObjectStore, version: str) -> int:
    adapter = Pool.from_manifest(store.get_json(version)).groups[0].adapter
    return len(store.get(store.folder_files(adapter)[WEIGHTS]))


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    """A figure of /proc in MiB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1024  # type: ignore[index]


def measure(state: Path, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Memory by number of groups, on the state in a folder."""
    environment = {**os.environ, "LCIA_HOME": str(state)}
    out = []
    for size in sizes:
        argv = [sys.executable, "-m", "benchmarks.gateway.memory", "--groups", str(size)]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        out.append(json.loads(done.stdout.splitlines()[-1]))
    return out


def main() -> None:
    """Print what one size takes, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.memory", description=__doc__)
    parser.add_argument("--groups", type=int, required=True)
    print(json.dumps(own(parser.parse_args().groups)))


if __name__ == "__main__":
    main()
