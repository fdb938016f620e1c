"""Requests of OpenAI's API as the gateway takes them, https://platform.openai.com/docs/api-reference.

A field that would change the answer and that the gateway can't honour is refused by name, never ignored.
"""

import binascii
from base64 import b64decode
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from components.errors import LciaError
from components.serving.conversation import Conversation, texts_of
from components.serving.engine import Sampling
from components.settings import Fallback

HARMLESS = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
"""Fields that change no answer; they are taken and not used."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
"""Fields that the gateway can't honour, and their values that ask for nothing; null does so too."""
FAULTS, FAULT = 10, 300
"""Most faults of a request that one refusal names, and characters of each."""
IMAGE_KINDS = ("image/png", "image/jpeg", "image/webp")


class RequestRefused(LciaError):
    """A request that the gateway can't answer as it is; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    @classmethod
    def of(cls, error: ValidationError) -> "RequestRefused":
        """Refusal of a body that does not fit; it repeats numbers, and no text."""
        faults = error.errors(include_url=False)
        where = _place(faults[0])
        return cls("; ".join(map(_fault, faults[:FAULTS])), where[0] if where else None)


class Shape(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class TextPart(Shape):
    """Text of a turn; of several the first is taken for the instruction."""

    type: Literal["text", "input_text"]
    text: str


class ImageAddress(Shape):
    """Image inside the request."""

    url: str
    """`data:image/png;base64,...`; the gateway fetches nothing from elsewhere."""
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Shape):
    """Image of a turn."""

    type: Literal["image_url"]
    image_url: ImageAddress


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Shape):
    """Turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=64)]
    name: str | None = None

    @property
    def texts(self) -> list[str]:
        """Its texts, in order."""
        if isinstance(self.content, str):
            return [self.content]
        return [part.text for part in self.content if isinstance(part, TextPart)]

    @property
    def images(self) -> list[bytes]:
        """Files of its images.

        Raises:
            RequestRefused: an address from elsewhere, or no base64.
        """
        parts = [] if isinstance(self.content, str) else self.content
        return [_image(part.image_url.url) for part in parts if isinstance(part, ImagePart)]


Choice: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096)]
Stop: TypeAlias = Annotated[str, Field(max_length=256)]


class StreamOptions(Shape):
    """Extras of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class CommonFields(Shape):
    """Fields that both kinds of request have."""

    model: str = Field(max_length=200)
    """`assistant`, `assistant:TASK`, `assistant@N` or `base`."""
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """Most tokens of the answer; without it the task's own limit holds."""
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    """0, as evaluated, if it is left out."""
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    """Each is looked for at every token, in the loop that all requests share: so none is long."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    """End user, so that a trial gives one user answers of one version; neither kept nor logged."""
    choices: Annotated[list[Choice], Field(min_length=1, max_length=64)] | None = None
    """Answers to choose from, for tasks whose rows have their own; not a field of OpenAI's."""
    fallback: Fallback | None = None
    """If two tasks are about as likely, in place of the version's own setting; not a field of OpenAI's."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_by_name(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON
        if not isinstance(value, dict):
            return value
        for name, neutral in NEUTRAL.items():
            if name in value and value[name] is not None and value[name] not in neutral:
                raise PydanticCustomError("not_able", "the gateway can't do {field}; leave it out", {"field": name})
        return {name: each for name, each in value.items() if name not in NEUTRAL and name not in HARMLESS}

    @property
    def sampling(self) -> Sampling:
        """Choice of the next token."""
        return Sampling(self.temperature or 0.0, 1.0 if self.top_p is None else self.top_p, self.seed)

    @property
    def stops(self) -> list[str]:
        """Strings that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChatRequest(CommonFields):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """Newer name of `max_tokens`."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, if the caller says so."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """Alternatives to report for each token; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def files(self) -> list[bytes]:
        """Files of the last turn's images.

        Raises:
            RequestRefused: an earlier turn shows an image.
        """
        if any(message.images for message in self.messages[:-1]):
            raise RequestRefused("an earlier turn shows an image, expected in the last turn only", "messages")
        return self.messages[-1].images

    def conversation(self) -> Conversation:
        """The turns, without images.

        Raises:
            RequestRefused: the last turn is not the user's, or a system turn comes later than first.
        """
        roles = ["system" if message.role == "developer" else message.role for message in self.messages]
        if roles[-1] != "user":
            raise RequestRefused(f"the last message is the {roles[-1]}'s, expected the user's", "messages")
        if "system" in roles[1:]:
            raise RequestRefused("a system message comes later than first, expected one at most, first", "messages")
        texts = [texts_of(message.texts) for message in self.messages]
        if any(not text.strip() for text, _ in texts):
            raise RequestRefused("a message holds no text, expected some in each", "messages")
        turns = tuple((role, text) for role, (text, _) in zip(roles, texts, strict=True))
        return Conversation(turns, first_part=texts[-1][1])


class CompletionRequest(CommonFields):
    """`POST /v1/completions`: the prompt is one user turn; it is laid out as in a chat, as evaluated."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, if the caller says so."""
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Alternatives to report for each token; None: no log-probabilities."""
        return self.logprobs

    @property
    def files(self) -> list[bytes]:
        """No images."""
        return []

    def conversation(self) -> Conversation:
        """The prompt as one user turn.

        Raises:
            RequestRefused: it is empty.
        """
        prompt = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        if not prompt.strip():
            raise RequestRefused("the prompt is empty, expected a text", "prompt")
        return Conversation((("user", prompt),))


class Feedback(Shape):
    """`POST /v1/feedback`: somebody's verdict on an answer."""

    id: str = Field(max_length=200)
    """Header `lcia-answer` of the answer, which is also its `id`."""
    good: bool
    """True: it helped; false: a complaint."""


def _place(fault: ErrorDetails) -> list[str]:
    """Fields and positions on the way to a fault, without the kinds that pydantic tried."""
    if fault["type"] == "not_able":
        return [str(fault["ctx"]["field"])]
    return [str(each) for each in fault["loc"] if isinstance(each, int) or (each.isidentifier() and each != "str")]


def _fault(fault: ErrorDetails) -> str:
    unknown = fault["type"] == "extra_forbidden"
    message = "the gateway knows no such field; leave it out" if unknown else fault["msg"]
    value = fault["input"]
    got = f", got {value!r:.40}" if (value is None or isinstance(value, int | float)) and not unknown else ""
    return f"{'.'.join(_place(fault)) or 'body'}: {message}"[:FAULT] + got


def _image(url: str) -> bytes:
    kind, comma, content = url.partition(",")
    if not comma or kind not in {f"data:{each};base64" for each in IMAGE_KINDS}:
        raise RequestRefused(
            f"an image comes as {kind[:40]!r}, expected data:image/png;base64,... (or jpeg, webp): images come with "
            "the request, the gateway fetches nothing",
            "messages",
        )
    try:
        return b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestRefused(f"an image is not base64: {error}", "messages") from None
