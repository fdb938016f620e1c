"""The console without a mouse."""

import pytest


@pytest.fixture
def visitor(site, enter):
    return enter(site, "approver")


def tab_until(visitor, script, most=120):
    """Press Tab until something of the focused element is true; fails after `most` times."""
    for _ in range(most):
        visitor.page.keyboard.press("Tab")
        if visitor.focused(script):
            return
    raise AssertionError(f"{most} times Tab never reached {script}")


def test_the_first_key_leads_past_the_menu(visitor):
    visitor.go("/")
    visitor.page.keyboard.press("Tab")
    assert visitor.focused("e.className") == "skip"
    assert visitor.page.locator(".skip").bounding_box()["x"] >= 0
    visitor.page.keyboard.press("Enter")
    assert visitor.focused("e.id") == "main"


def test_what_has_the_focus_is_seen(visitor):
    visitor.go("/")
    for _ in range(25):
        visitor.page.keyboard.press("Tab")
        if visitor.focused("e === document.body"):  # round the page once
            break
        outline = visitor.focused("getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth")
        assert outline == "solid3px", visitor.focused("e.outerHTML")


def test_the_menu_opens_and_closes(visitor):
    visitor.go("/")
    tab_until(visitor, "e.matches('.menu summary')")
    visitor.page.keyboard.press("Enter")
    assert visitor.page.locator("details.menu").get_attribute("open") is not None
    tab_until(visitor, "e.name === 'theme'", most=5)
    visitor.page.keyboard.press("Escape")
    assert visitor.page.locator("details.menu").get_attribute("open") is None
    assert visitor.focused("e.matches('.menu summary')")


def test_a_table_is_sorted_and_the_focus_stays(visitor):
    visitor.go("/tasks")
    tab_until(visitor, "e.id === 'sort-tasks-name'")
    for order in ("ascending", "descending"):
        visitor.page.keyboard.press("Enter")
        visitor.page.wait_for_selector(f"th[aria-sort={order}] #sort-tasks-name")
        visitor.settle()
        assert visitor.focused("e.id") == "sort-tasks-name"
    names = [text.partition("@")[0] for text in visitor.page.locator("tbody th a").all_inner_texts()]
    assert names == sorted(names, reverse=True)
    assert "tasks.sort=-name" in visitor.page.url


def test_a_version_is_decided_about(own_site, enter):
    visitor = enter(own_site, "approver")
    visitor.go("/")
    tab_until(visitor, "e.textContent === 'Read and decide'")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_url("**/versions/4#decide")
    tab_until(visitor, "e.name === 'reason' && e.closest('form').action.endsWith('/do/approve')")
    visitor.page.keyboard.type("read by keyboard")
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("Enter")
    visitor.page.get_by_role("status").get_by_text("Your approval of version 4 counts").wait_for()
