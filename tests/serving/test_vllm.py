"""The line that starts vLLM for a gateway; that of an exported version is tested with the bundle."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from components.serving.engine import NotAbleTo
from components.serving.vllm import gateway_command
from components.settings import AdapterSettings, BaseModelSettings, GatewaySettings, Settings

DIGEST = "ab" * 32


def line(groups: int = 2, **sections: object) -> tuple[str, dict[str, str]]:
    command = gateway_command(Settings.model_validate(sections), DIGEST, Path("/models"), groups)
    words = shlex.split(command)
    return command, dict(pairwise(words))


def test_adapters_are_loaded_at_run_time_and_there_is_room_for_them():
    command, options = line()
    assert command.startswith(f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve /models/{DIGEST} --enable-lora ")
    assert "--lora-modules" not in options
    assert (options["--max-loras"], options["--max-cpu-loras"]) == ("3", "7")  # with the neutral adapter
    assert options["--max-lora-rank"] == "8"
    assert line(groups=0)[1]["--max-loras"] == "2"


def test_numbers_and_defaults_are_those_of_the_evaluation():
    base = BaseModelSettings(dtype="bfloat16", max_tokens=300)
    _, options = line(base_model=base, gateway=GatewaySettings(new_tokens=100), adapter=AdapterSettings(rank=9))
    assert options["--dtype"] == "bfloat16"
    assert options["--generation-config"] == "vllm"
    assert options["--max-model-len"] == "400"
    assert options["--max-lora-rank"] == "16"
    assert "--override-generation-config" not in options  # it would cut answers


def test_a_hub_model_is_that_of_the_revision():
    base = BaseModelSettings(name="some/model", revision="abc 123", quantization="nf4")
    command, options = line(base_model=base)
    assert "vllm serve some/model " in command
    assert options["--revision"] == options["--tokenizer-revision"] == "abc 123"
    assert options["--quantization"] == "bitsandbytes"


def test_projectors_are_refused():
    with pytest.raises(NotAbleTo, match="projector"):
        line(adapter=AdapterSettings(projector=True))
