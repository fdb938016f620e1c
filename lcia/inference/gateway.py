"""Questions to a gateway, where the settings name one: `lcia ask` and the console then load no model."""

import os
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import httpx2

from components.errors import LciaError
from components.settings import Fallback, Settings
from lcia.inference.process import PATIENCE

TOKEN, OWN = "LCIA_GATEWAY_TOKEN", "LCIA_TOKEN"
"""Variables with the token that the gateway is shown; the first that is set."""
KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
"""Kind of an image by its first bytes."""


class GatewayFailed(LciaError):
    """The gateway does not answer, or refuses; the message is its own."""


class GatewayAnswerer:
    """A gateway as `Answerer` is asked: versions by digest or number, None for the base model alone."""

    def __init__(self, settings: Settings) -> None:
        self._address, self._assistant = settings.gateway.address.rstrip("/"), settings.assistant

    def ask(
        self, versions: Sequence[str | None], instruction: str, text: str | None, images: Sequence[bytes] = ()
    ) -> list[dict[str, Any]]:
        """Answer of each version; see `Answerer.ask`.

        Raises:
            GatewayFailed: it does not answer, or refuses.
        """
        models = ["base" if version is None else f"{self._assistant}@{version}" for version in versions]
        return [self.answer(model, instruction, text, images) for model in models]

    def end(self) -> None:
        """Nothing to end: the gateway is a process of its own."""

    def answer(
        self,
        model: str,
        instruction: str,
        text: str | None,
        images: Sequence[bytes] = (),
        fallback: Fallback | None = None,
    ) -> dict[str, Any]:
        """Answer of one model of the gateway's: `text`, `group`, `similarity`, `nearest_task`, `version`.

        Raises:
            GatewayFailed: it does not answer, or refuses.
        """
        parts: list[dict[str, Any]] = [{"type": "text", "text": each} for each in (instruction, text) if each]
        parts += [{"type": "image_url", "image_url": {"url": _data(image)}} for image in images]
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": parts}]}
        if fallback is not None:
            body["fallback"] = fallback
        value = self._send(body)
        facts = value["lcia"]
        return {
            "text": value["choices"][0]["message"]["content"],
            "group": facts["group"],
            "similarity": facts["similarity"],
            "nearest_task": facts["task"],
            "version": facts["version"],
        }

    def _send(self, body: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        token = os.environ.get(TOKEN) or os.environ.get(OWN)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        address = f"{self._address}/v1/chat/completions"
        try:
            with httpx2.Client(timeout=PATIENCE, follow_redirects=False) as client:
                reply = client.post(address, json=body, headers=headers)
            value = reply.json()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise GatewayFailed(
                f"the gateway at {self._address} (gateway.address) does not answer ({type(error).__name__}); is "
                "`lcia gateway` running there? An empty gateway.address loads the model here instead"
            ) from error
        if not reply.is_success:
            raise GatewayFailed(f"the gateway at {self._address} refuses: {_words(value)}")
        return value


def _words(value: Any) -> str:  # noqa: ANN401 - any JSON
    try:
        return str(value["error"]["message"])
    except (KeyError, TypeError):
        return "it is no gateway of lcia's"


def _data(image: bytes) -> str:
    kind = next((name for start, name in KINDS.items() if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{b64encode(image).decode()}"
