"""Every page, as every role sees it: nothing is refused, runs wild, reaches outside or is wider than the screen."""

import axe
import pytest
from hostile import ENDLESS, MARKUP
from walk import walk

from tests.browser.conftest import NARROW, ROLES, WIDE

PAGES = {"/", "/tasks", "/versions", "/try"}
"""Some of those that everybody reaches."""
ALSO = {"auditor": {"/log"}, "approver": {"/log"}, "admin": {"/log", "/people"}}


@pytest.mark.parametrize("role", ROLES)
def test_every_page_that_a_role_is_offered(site, enter, role):
    visitor = enter(site, role)
    seen, wrong = set(), []
    for path, status in walk(visitor):
        seen.add(path.partition("?")[0])
        if status != 200:
            wrong.append(f"{path}: status {status}")
        wrong += [f"{path}: wider than {width} pixels" for width in (NARROW, WIDE) if visitor.overflows(width)]
        if visitor.page.evaluate("window.hacked"):
            wrong.append(f"{path}: ran hostile text")
    assert wrong + visitor.complaints == []
    assert seen >= PAGES | ALSO.get(role, set())


@pytest.mark.parametrize("role", ROLES)
def test_signing_in_with_the_organisation(site, chromium, role):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{site.address}/versions")
    page.get_by_role("link", name=role, exact=True).click()  # the provider's page
    page.wait_for_url(f"{site.address}/versions")
    assert page.locator(".menu summary").inner_text() == role
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.goto(f"{site.address}/v1/status").status == 401
    context.close()


def test_hostile_text_is_shown_as_it_is(site, enter):
    visitor = enter(site, "everybody")
    found = set()
    for _ in walk(visitor):
        text = visitor.page.evaluate("document.body.textContent")
        found |= {piece for piece in (MARKUP, ENDLESS) if piece in text}
    assert found == {MARKUP, ENDLESS}
    assert not visitor.page.evaluate("window.hacked")
    assert visitor.complaints == []


def test_no_page_shuts_people_out(site, enter, request):
    """axe-core finds nothing serious on any page, light or dark, wide or narrow."""
    script = axe.source(request.config)
    visitor = enter(site, "everybody")
    found = {}
    for path, _ in walk(visitor):
        visitor.page.evaluate(script)
        for scheme in ("light", "dark"):
            visitor.page.emulate_media(color_scheme=scheme)
            for width in (WIDE, NARROW):
                visitor.page.set_viewport_size({"width": width, "height": 900})
                for violation in _violations(visitor.page):
                    found.setdefault(violation, []).append(f"{path} {scheme} {width}")
    assert found == {}


@pytest.mark.parametrize("path", ["/login/token", "/nowhere"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_without_a_frame_shut_nobody_out(site, chromium, request, path, scheme):
    script = axe.source(request.config)
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(site.address + path)
    page.evaluate(script)
    assert _violations(page) == []
    context.close()


def _violations(page) -> list[str]:
    """Rule and first element of each violation that keeps people out."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], iframes: false})")["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:160]} ({len(one['nodes'])} of them)"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
