"""Verdicts as JUnit XML, which build servers read."""

from collections.abc import Sequence
from xml.etree import ElementTree

from pellucid.show.words import number
from pellucid.statistics.interval import Interval
from pellucid.study.verdicts import Finding, Verdict

_TAGS = {"FAIL": "failure", "INCONCLUSIVE": "error", "NOT MEASURED": "error"}


def junit_of(verdicts: Sequence[Verdict]) -> str:
    """One suite for each method, one test for each criterion.

    What is not known is an error there, and not skipped: a build server shows skipped tests in green.

    Args:
        verdicts: of one protocol.
    """
    root = ElementTree.Element("testsuites", name="pellucid gate")
    for verdict in verdicts:
        about = f"{verdict.protocol.id}: {verdict.method} of {verdict.target}, {verdict.model}"
        tags = [_TAGS.get(f.state) for f in verdict.findings]
        counts = {"tests": str(len(tags)), "failures": str(tags.count("failure")), "errors": str(tags.count("error"))}
        suite = ElementTree.SubElement(root, "testsuite", {"name": about, **counts, "skipped": "0"})
        facts = ElementTree.SubElement(suite, "properties")
        told = {"verdict": verdict.state, "words": verdict.words, "protocol": verdict.protocol.digest}
        for name, value in told.items():
            ElementTree.SubElement(facts, "property", name=name, value=value)
        for finding in verdict.findings:
            _add(suite, verdict, finding)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _add(suite: ElementTree.Element, verdict: Verdict, finding: Finding) -> None:
    place = f"{verdict.protocol.id}.{finding.criterion.tier}"
    case = ElementTree.SubElement(suite, "testcase", classname=place, name=finding.criterion.id)
    tag = _TAGS.get(finding.state)
    if tag is not None:
        told = {"type": finding.state, "message": f"{finding.criterion.words}: {in_words(finding)}"}
        ElementTree.SubElement(case, tag, told).text = finding.words


def in_words(finding: Finding) -> str:
    """Estimate, interval and what is still needed, in one line.

    Args:
        finding: of a criterion.
    """
    found = finding.found
    if found is None or not found.count:
        return finding.words
    told = bounds_words(found)
    return f"{told}, {needed_words(finding)}" if finding.state == "INCONCLUSIVE" else told


def bounds_words(found: Interval) -> str:
    """Estimate and interval.

    Args:
        found: of a criterion.
    """
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def needed_words(finding: Finding) -> str:
    """How many patients are still needed, and what for.

    Args:
        finding: that is INCONCLUSIVE.
    """
    if finding.needed is None:
        return "how many patients are still needed cannot be said"
    patients = "1 more patient" if finding.needed == 1 else f"about {finding.needed} more patients"
    return f"{patients} to settle it" + (f", as {finding.settles} if the estimate stays" if finding.settles else "")
