"""Bookinfo's ratings: how many stars each reviewer gave. Calls nobody."""

from service import Answer, Headers, Service

ratings = Service("ratings")


def answer(path: str, _headers: Headers) -> Answer:
    """``/ratings``: stars by reviewer."""
    if path != "/ratings":
        return 404, {"error": f"no such page: {path}"}
    return 200, {"Reviewer1": 5, "Reviewer2": 4}


ratings.run(answer)
