"""Bookinfo's ratings: how many stars each reviewer gave. Calls nobody."""

from service import Answer, Headers, Service, caller

ratings = Service("ratings")


def answer(path: str, headers: Headers) -> Answer:
    """``/ratings``: stars by reviewer, and who asked."""
    if path != "/ratings":
        return 404, {"error": f"no such page: {path}"}
    return 200, {"stars": {"Reviewer1": 5, "Reviewer2": 4}, "caller": caller(headers)}


ratings.run(answer)
