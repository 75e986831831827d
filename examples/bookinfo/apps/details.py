"""Bookinfo's details: facts about the book. Calls nobody."""

from service import Answer, Headers, Service

details = Service("details")


def answer(path: str, _headers: Headers) -> Answer:
    """``/details``: author, year, pages."""
    if path != "/details":
        return 404, {"error": f"no such page: {path}"}
    return 200, {"author": "William Shakespeare", "year": 1595, "pages": 200}


details.run(answer)
