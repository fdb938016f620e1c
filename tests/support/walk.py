"""Walking through the console by its own links: one page of each kind."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.browser.conftest import Visitor

LEFT_OUT = re.compile(r"/(reports/|pictures/|static/|v1/|login|openapi)|\.(json|jsonl|csv|pem|png)$")
"""Documents that are not pages of the console."""


def walk(visitor: Visitor) -> Iterator[tuple[str, int]]:
    """Load a page of each kind that links lead to from the overview; gives its path and status."""
    waiting, known = ["/"], {"/"}
    while waiting:
        path = waiting.pop(0)
        answer = visitor.go(path)
        yield path, answer.status
        for link in visitor.page.eval_on_selector_all("a[href]:not([download])", "all => all.map(a => a.href)"):
            url = urlsplit(link)
            kind = re.sub(r"\d+", "N", url.path)
            if link.startswith(visitor.address) and kind not in known and not LEFT_OUT.search(url.path):
                known.add(kind)
                waiting.append(url.path + (f"?{url.query}" if url.query else ""))
