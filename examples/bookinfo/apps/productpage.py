"""
Bookinfo's front page: asks details and reviews, and shows both.

A browser gets a page; whoever accepts ``application/json`` gets the same as data. The reader is
taken from the header ``end-user`` or from ``?u=NAME`` and handed on.
"""

from html import escape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from service import Answer, Headers, Service

productpage = Service("productpage")


def answer(path: str, headers: Headers) -> Answer:
    """``/productpage``: the book, its details and its reviews."""
    url = urlsplit(path)
    if url.path == "/health":
        return 200, {"status": "ok"}
    if url.path not in ("/", "/productpage"):
        return 404, {"error": f"no such page: {path}"}
    user = headers.get("end-user") or "".join(parse_qs(url.query).get("u", []))
    sent = dict(headers) | ({"end-user": user} if user else {})
    details_status, details = productpage.call("details", "/details", sent)
    reviews_status, reviews = productpage.call("reviews", "/reviews", sent)
    page = {
        "user": user,
        "details": {"status": details_status, "body": details},
        "reviews": {"status": reviews_status, "body": reviews},
    }
    return 200, page if "application/json" in headers.get("accept", "") else render(page)


def render(page: dict[str, Any]) -> str:
    """Return the page as HTML."""
    details, reviews = page["details"], page["reviews"]
    facts = escape(str(details["body"]))
    if details["status"] == 200:
        book = details["body"]
        facts = f"{escape(book['author'])}, {book['year']}, {book['pages']} pages"
    rows = f"<p>Reviews are not available ({reviews['status']}).</p>"
    if reviews["status"] == 200:
        body = reviews["body"]
        rows = f"<p>reviews <b>{body['version']}</b></p>"
        if body["ratings_status"] not in (None, 200):
            rows += f"<p>Ratings are not available ({body['ratings_status']}).</p>"
        for review in body["reviews"]:
            stars = "&#9733;" * (review["stars"] or 0)
            rows += f"<blockquote>{escape(review['text'])}<br>"
            rows += f"<span style='color:{body['colour'] or 'black'}'>{stars}</span></blockquote>"
    who = f"signed in as {escape(page['user'])}" if page["user"] else "not signed in (try ?u=jason)"
    return (
        "<!doctype html><meta charset=utf-8><title>The Comedy of Errors</title>"
        "<body style='font-family:sans-serif;max-width:40em;margin:3em auto'>"
        f"<h1>The Comedy of Errors</h1><p>{facts}</p><p><i>{who}</i></p>{rows}"
    )


productpage.run(answer)
