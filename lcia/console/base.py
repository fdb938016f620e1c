"""Common ground of all pages: the reader, their language, and the check that a form comes from here."""

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from components.errors import LciaError
from components.identity.access import Permission, permits
from components.storage.objects import Json
from lcia.console import language
from lcia.console.rendering import render
from lcia.instance import Instance
from lcia.operations import versions
from lcia.operations.table import OPERATIONS
from lcia.service.border import root_of
from lcia.service.callers import PERSON, Caller, NotSignedIn, caller_of, perform
from lcia.service.limits import Rates
from lcia.service.sessions import stands
from lcia.service.sign_in import CSRF, NEXT

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "lcia_theme"
FLASH = "flash"
"""Key of the session: a sentence on what was just done, shown once, on the next page."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Content security policy of every page: nothing inline, nothing from elsewhere."""


class FormRefused(LciaError):
    """A form that did not come from a page of this console, or from one that is too old."""


@dataclass(frozen=True)
class Reader:
    """Somebody who looks at a page, and how."""

    request: Request
    caller: Caller

    @cached_property
    def language(self) -> str:
        """Code of the language that the page is written in."""
        return language.language_of(self.request)

    def say(self, message: str) -> str:
        """A message in the reader's language."""
        return language.catalogue(self.language).gettext(message)

    @property
    def theme(self) -> str:
        """One of `THEMES`."""
        return theme_of(self.request)

    @property
    def csrf(self) -> str:
        """Text that forms have to bring back; empty for a program with a token, which sends none."""
        return str(self.request.session.get(CSRF, ""))

    @property
    def name(self) -> str:
        """The person."""
        return self.caller.person.name

    def may(self, permission: Permission, site: str | None = None) -> bool:
        """True if something may be offered; that it is allowed is checked again when it is done."""
        beyond = self.caller.only and permission not in self.caller.only  # a token may be for some things only
        return not beyond and permits(self.caller.grants, permission, site)

    def may_at(self, permission: Permission, sites: Collection[str]) -> bool:
        """True if something may be offered at one of the sites."""
        return any(self.may(permission, site) for site in sites)

    def may_all(self, permission: Permission, sites: Collection[str]) -> bool:
        """True if something may be offered at all of the sites together."""
        return all(self.may(permission, site) for site in sites)


@dataclass(frozen=True)
class Console:
    """The pages' common ground."""

    instance: Instance
    rates: Rates

    @cached_property
    def root(self) -> str:
        """The path prefix of the service's addresses, for browsers."""
        return root_of(self.instance.settings.serve.address)

    def reader(self, request: Request, *, counted: bool = True) -> Reader:
        """The person who is looking; everybody here may look. `counted` unless the page that this is a part of was.

        Raises:
            NotSignedIn, TokenRefused, TooManyRequests: nobody known, or too often.
            Forbidden: somebody without any role.
        """
        caller = caller_of(request, self.instance, self.rates, counted=counted)
        caller.need("look", None)
        return Reader(request, caller)

    def still(self, request: Request) -> None:
        """Refuse to go on for somebody whose sign-in is over, without counting a call.

        Raises:
            NotSignedIn, TokenRefused, Forbidden.
        """
        if PERSON in request.session and not stands(self.instance.db, request.session):
            raise NotSignedIn("signed out")
        caller_of(request, self.instance, self.rates, counted=False).need("look", None)

    def ask(self, reader: Reader, name: str, **params: Any) -> Json:  # noqa: ANN401 - as the operation takes them
        """Do an operation as the reader, with every check of the API.

        Raises:
            ParametersRefused, Forbidden; whatever the operation raises.
        """
        operation = OPERATIONS[name]
        return perform(self.instance, operation, reader.caller, operation.check(params))

    def page(self, reader: Reader, template: str, status: int = 200, **values: Any) -> Response:  # noqa: ANN401
        """A whole page with the console's frame."""
        flash = reader.request.session.pop(FLASH, None)
        frame = {"flash": flash, "undecided": versions.number_pending(self.instance)}
        return html(self._render(reader, template, {**frame, **values}), status)

    def fragment(self, reader: Reader, template: str, **values: Any) -> Response:  # noqa: ANN401
        """A part of a page."""
        return html(self._render(reader, template, values))

    def _render(self, reader: Reader, template: str, values: Mapping[str, Any]) -> str:
        common = {"reader": reader, "assistant": self.instance.assistant, "path": reader.request.url.path}
        return render(reader.language, template, {**common, **values}, self.root)


def theme_of(request: Request) -> str:
    """The theme the reader chose."""
    cookie = request.cookies.get(THEME_COOKIE, "auto")
    return cookie if cookie in THEMES else "auto"


def html(content: str, status: int = 200) -> Response:
    """A page under the console's content security policy."""
    return HTMLResponse(content, status, {"content-security-policy": POLICY})


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form sent by one of this console's pages.

    Raises:
        FormRefused: another site sent it, or the session it belongs to is over.
    """
    fields = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    own, token = str(request.session.get(CSRF, "")), fields.pop("csrf", "")
    elsewhere = request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if elsewhere or not own or not hmac.compare_digest(own.encode(), token.encode()):
        raise FormRefused("the form was not sent by a page of this sign-in; load the page again and repeat it")
    return fields


def local(address: str) -> str:
    """An address on this server; the overview for any other."""
    fine = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if fine else "/"


def onwards(request: Request, address: str) -> Response:
    """Send the browser to a page, also where a script asks."""
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"hx-redirect": address})
    return RedirectResponse(address, 303)


def to_sign_in(request: Request) -> Response:
    """Let somebody unknown sign in, and come back afterwards."""
    if request.method == "GET" and not request.headers.get("hx-request"):
        query = f"?{request.url.query}" if request.url.query else ""
        request.session[NEXT] = local(request.url.path + query)
    return onwards(request, "/login")
