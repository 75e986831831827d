"""Bookinfo's details: facts about the book. Calls nobody."""

from service import Answer, Headers, Service, caller

details = Service("details")


def answer(path: str, headers: Headers) -> Answer:
    """``/details``: author, year, pages, and who asked."""
    if path != "/details":
        return 404, {"error": f"no such page: {path}"}
    facts = {"author": "William Shakespeare", "year": 1595, "pages": 200}
    return 200, facts | {"caller": caller(headers)}


details.run(answer)
