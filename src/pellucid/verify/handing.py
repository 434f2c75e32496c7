"""What ours has cut and drawn, as tensors for a peer: on other parts and other draws another map would be right."""

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.core.cohort import Cohort
from pellucid.core.explainer import CohortExplainer, Explainer
from pellucid.core.players import players_of
from pellucid.core.probe import Probe
from pellucid.explain.cohort import permutations
from pellucid.explain.owen import Hierarchy, PartitionSHAP
from pellucid.explain.references import References
from pellucid.verify.cohorts import cohort_of, points_of
from pellucid.verify.ours import Explained
from pellucid.verify.subjects import Prepared

Method = Explainer | CohortExplainer
Handed = dict[str, Tensor]


def _probe(prepared: Prepared) -> Probe:
    return Probe(prepared.model, {prepared.model.primary: prepared.x}, prepared.target, (), prepared.scene)


def players(prepared: Prepared, method: Method, _ours: Explained) -> Handed:
    """The label map of the players of each item."""
    units = players_of(_probe(prepared), vars(method)["players"])
    return {"players": torch.stack([u.labels for u in units])}


def coalitions(prepared: Prepared, method: Method, ours: Explained) -> Handed:
    """And who was shown in each image that the network has seen: "seen item player", read off the images."""
    handed = players(prepared, method, ours)
    rows = []
    for seen in ours.seen:
        same = (seen == prepared.x).all(1)
        rows.append(
            torch.stack(
                [
                    torch.stack([s[p == k].all() for k in range(int(p.max()) + 1)])
                    for s, p in zip(same, handed["players"], strict=True)
                ]
            )
        )
    return handed | {"shown": torch.stack(rows)}


def hierarchy(prepared: Prepared, method: Method, ours: Explained) -> Handed:
    """And the groups of the players, as scipy writes a tree: one row for each pair that is joined."""
    if not isinstance(method, PartitionSHAP):
        return players(prepared, method, ours)
    trees = method.hierarchies(_probe(prepared))
    return players(prepared, method, ours) | {"linkage": torch.stack([linkage(tree) for tree in trees])}


def linkage(tree: Hierarchy) -> Tensor:
    """Two groups that are joined, at which height, and how many players they have: children before their parents."""
    count = tree.members.shape[1]
    number = {g: int(tree.members[g].nonzero()[0, 0]) for g, parts in enumerate(tree.parts) if parts is None}
    rows = []
    for g in reversed(range(len(tree.parts))):  # a group comes before its parts
        parts = tree.parts[g]
        if parts is not None:
            rows.append([number[parts[0]], number[parts[1]], len(rows) + 1, int(tree.members[g].sum())])
            number[g] = count + len(rows) - 1
    return torch.tensor(rows, dtype=torch.float64)


def references(prepared: Prepared, method: Method, _ours: Explained) -> Handed:
    """What each item is compared with: "reference item channel *space"."""
    settings, name = vars(method), prepared.model.primary
    found = References(_probe(prepared), settings["baseline"], settings["references"])
    return {"references": torch.stack([one[name] for one in found])}


def _parts(prepared: Prepared) -> tuple[Cohort, Handed]:
    cohort = cohort_of(prepared)
    return cohort, {"parts": cohort.parts.labels[0] - 1}


def orders(prepared: Prepared, method: Method, _ours: Explained) -> Handed:
    """The regions, which case gives to which in each repeat, and which cases are of the class."""
    cohort, handed = _parts(prepared)
    drawn = permutations(cohort, vars(method)["repeats"], within_groups=False)
    truth = torch.tensor([label == "0" for label in cohort.labels])
    return handed | {"orders": torch.stack([torch.from_numpy(o) for o in drawn]), "truth": truth}


def values(prepared: Prepared, method: Method, _ours: Explained) -> Handed:
    """The regions, and the mean intensities that were set in each: "region point"."""
    cohort, handed = _parts(prepared)
    return handed | {"values": points_of(cohort, vars(method)["points"])}


def regions(prepared: Prepared, _method: Method, _ours: Explained) -> Handed:
    """The regions."""
    return _parts(prepared)[1]


HANDS: dict[str, Callable[[Prepared, Method, Explained], Handed]] = {
    "players": players,
    "coalitions": coalitions,
    "hierarchy": hierarchy,
    "references": references,
    "orders": orders,
    "values": values,
    "regions": regions,
}
