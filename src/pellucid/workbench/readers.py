"""Several readers' masks of one finding: what they agree upon stands as its truth, and says how it came about."""

from dataclasses import replace

from pellucid.core.case import Case, Region, consensus
from pellucid.core.errors import BadRegion

CONSENSUS = "consensus"


def readers_of(case: Case) -> dict[str, Region]:
    """The masks that name a reader, by reader.

    Raises:
        BadRegion: one reader has two, or is called as what they agree upon.
    """
    found: dict[str, Region] = {}
    for region in case.regions.values():
        if region.reader in found:
            raise BadRegion(
                f"expected one mask of each reader, got two of {region.reader!r} in case {case.name}",
                "name readers for one finding only, and give the other regions without",
            )
        if region.reader == CONSENSUS:
            raise BadRegion(f"a reader of case {case.name} is named {CONSENSUS!r}", "that is what readers agree upon")
        if region.reader:
            found[region.reader] = region
    return found


def with_consensus(case: Case) -> Case:
    """The case with the majority of its readers as region ``consensus``, and a note that names them.

    A voxel that exactly half of the readers marked counts as inside, as in the 50% consensus of LIDC: of two readers
    it is the union. A case with one reader or none comes back as it is.

    Raises:
        BadRegion: one reader has two masks, or another region has that name.
    """
    known = readers_of(case)
    words = consensus_words(tuple(known))
    if len(known) < 2 or words in case.notes:
        return case
    if CONSENSUS in case.regions:
        raise BadRegion(
            f"case {case.name} has a region named {CONSENSUS!r} beside its readers'", "give it another name"
        )
    grid = next(iter(known.values())).grid
    majority = Region(consensus([r.on(grid) for r in known.values()]), grid)
    return replace(case, regions={**case.regions, CONSENSUS: majority}, notes=(*case.notes, words))


def consensus_words(readers: tuple[str, ...]) -> str:
    """Whose consensus it is, and what became of ties."""
    return f"the region is the consensus of {', '.join(readers)}: what at least half of them marked (ties count)"
