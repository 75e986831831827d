"""
Bookinfo's reviews, in three versions that differ in the stars they show.

v1 shows none and asks nobody; v2 shows black stars, v3 red ones, both asking ratings.
"""

from service import Answer, Headers, Service, caller

STARS = {"v1": None, "v2": "black", "v3": "red"}
REVIEWS = {
    "Reviewer1": "An extremely entertaining play by Shakespeare.",
    "Reviewer2": "Absolutely fun and entertaining.",
}

reviews = Service("reviews")


def answer(path: str, headers: Headers) -> Answer:
    """``/reviews``: the texts, with stars where this version shows them."""
    if path != "/reviews":
        return 404, {"error": f"no such page: {path}"}
    colour = STARS[reviews.version]
    page = {
        "version": reviews.version,
        "colour": colour,
        "caller": caller(headers),
        "ratings_status": None,
        "ratings_caller": "",
        "reviews": [],
    }
    stars = {}
    if colour is not None:
        page["ratings_status"], body = reviews.call("ratings", "/ratings", headers)
        if page["ratings_status"] == 200:
            stars, page["ratings_caller"] = body["stars"], body["caller"]
    page["reviews"] = [
        {"reviewer": reviewer, "text": text, "stars": stars.get(reviewer)}
        for reviewer, text in REVIEWS.items()
    ]
    return 200, page


reviews.run(answer)
