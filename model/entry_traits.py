"""What a ServiceEntry says of connections to its hosts, for those few clusters that ask."""

from typing import Final, NamedTuple

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.model.inputs import SERVICE_ENTRIES

CONNECT_STRATEGY: Final = "istio.io/connect-strategy"
RACE: Final = "RACE_FIRST_TCP_CONNECT"


class EntryTraits(NamedTuple):
    """
    What clusters ask of an entry.

    `names` are those its certificates may have (SE-11). With `races`, connections go to all
    resolved addresses at once and the first that answers is kept (CL-04).
    """

    names: tuple[str, ...] = ()
    races: bool = False


@query
def entry_traits(ctx: Ctx, key: ObjectKey) -> EntryTraits:
    """Return the traits of an entry; those of one that is not there are the defaults."""
    row = ctx.row(SERVICE_ENTRIES, key)
    if row is None:
        return EntryTraits()
    return EntryTraits(
        names=row.spec.subject_alt_names,
        races=row.meta.annotations.get(CONNECT_STRATEGY) == RACE,
    )
