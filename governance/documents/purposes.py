"""Codes a document may name: EHDS purposes, HL7 PurposeOfUse, DUO terms, data categories.

The codes come from their sources; the sentences are ours. Codes form a tree if their source has
one: a statement about a code holds for every code below it. An unknown code is refused, and the
message names the nearest known one.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A code, what it means in one plain phrase, and the code it belongs under, if any."""

    code: str
    sentence: str
    parent: str | None = None


def _table(*rows: Code) -> dict[str, Code]:
    return {row.code: row for row in rows}


EHDS_PURPOSES = _table(
    Code("53-1-a", "public interest in public or occupational health"),
    Code("53-1-b", "policymaking and regulation by public bodies"),
    Code("53-1-c", "official statistics on health or care"),
    Code("53-1-d", "teaching in vocational or higher education"),
    Code("53-1-e", "scientific research in health or care"),
    Code("53-1-e-i", "developing and improving products or services", "53-1-e"),
    Code("53-1-e-ii", "training, testing and evaluating algorithms", "53-1-e"),
    Code("53-1-f", "improving care, treatment and how they are provided"),
)
"""Article 53(1) of Regulation (EU) 2025/327, the European Health Data Space."""

EHDS_PROHIBITED = _table(
    Code("54-a", "decisions to the detriment of a person or a group"),
    Code("54-b", "decisions on jobs, insurance, credit or other terms, or discrimination"),
    Code("54-c", "advertising or marketing"),
    Code("54-d", "products or services that may harm people or society"),
    Code("54-e", "activities against ethical provisions of national law"),
)
"""Article 54 of the same Regulation: uses that no agreement can allow."""

PURPOSE_OF_USE = _table(
    Code("HMARKT", "marketing of health goods or services"),
    Code("HOPERAT", "running health services"),
    Code("CAREMGT", "managing the care of patients", "HOPERAT"),
    Code("DONAT", "organ, tissue or blood donation", "HOPERAT"),
    Code("FRAUD", "detecting fraud", "HOPERAT"),
    Code("GOV", "tasks of government", "HOPERAT"),
    Code("HACCRED", "accrediting care providers", "HOPERAT"),
    Code("HCOMPL", "checking compliance with rules", "HOPERAT"),
    Code("HDECD", "matters of a person who has died", "HOPERAT"),
    Code("HDIRECT", "keeping a directory of providers or patients", "HOPERAT"),
    Code("HDM", "managing how care is delivered", "HOPERAT"),
    Code("HLEGAL", "legal proceedings or advice", "HOPERAT"),
    Code("HOUTCOMS", "measuring health outcomes", "HOPERAT"),
    Code("HPRGRP", "reporting on health programmes", "HOPERAT"),
    Code("HQUALIMP", "improving the quality of care", "HOPERAT"),
    Code("HSYSADMIN", "running health information systems", "HOPERAT"),
    Code("LABELING", "attaching security labels to data", "HSYSADMIN"),
    Code("METAMGT", "managing metadata", "HSYSADMIN"),
    Code("MEMADMIN", "administering insured members", "HOPERAT"),
    Code("MILCDM", "military command", "HOPERAT"),
    Code("PATADMIN", "administering patients", "HOPERAT"),
    Code("PATSFTY", "patient safety", "HOPERAT"),
    Code("PERFMSR", "measuring performance", "HOPERAT"),
    Code("RECORDMGT", "keeping records", "HOPERAT"),
    Code("SYSDEV", "developing health information systems", "HOPERAT"),
    Code("HTEST", "testing with test data", "SYSDEV"),
    Code("TRAIN", "training people", "HOPERAT"),
    Code("MLTRAINING", "training a machine-learning model", "HOPERAT"),
    Code("HPAYMT", "paying for care"),
    Code("CLMATTCH", "supporting a payment claim", "HPAYMT"),
    Code("COVAUTH", "authorising coverage", "HPAYMT"),
    Code("COVERAGE", "coverage under a policy or programme", "HPAYMT"),
    Code("ELIGDTRM", "determining eligibility for coverage", "COVERAGE"),
    Code("ELIGVER", "verifying eligibility for coverage", "COVERAGE"),
    Code("ENROLLM", "enrolling for coverage", "COVERAGE"),
    Code("MILDCRG", "discharge from military service", "COVERAGE"),
    Code("REMITADV", "advising of a payment made", "HPAYMT"),
    Code("PMTDS", "supporting a payment decision", "HPAYMT"),
    Code("HRESCH", "health research"),
    Code("BIORCH", "biomedical research", "HRESCH"),
    Code("CLINTRCH", "clinical trial research", "HRESCH"),
    Code("CLINTRCHNPC", "clinical trial research without patient care", "CLINTRCH"),
    Code("CLINTRCHPC", "clinical trial research with patient care", "CLINTRCH"),
    Code("PRECLINTRCH", "preclinical research", "CLINTRCH"),
    Code("DSRCH", "research into a named disease", "HRESCH"),
    Code("POARCH", "research into population origins or ancestry", "HRESCH"),
    Code("TRANSRCH", "translational research", "HRESCH"),
    Code("PATRQT", "a request by the patient"),
    Code("FAMRQT", "a request by the family", "PATRQT"),
    Code("PWATRNY", "acting under a power of attorney", "PATRQT"),
    Code("SUPNWK", "a request by the patient's support network", "PATRQT"),
    Code("PUBHLTH", "public health"),
    Code("DISASTER", "responding to a disaster", "PUBHLTH"),
    Code("THREAT", "responding to a health threat", "PUBHLTH"),
    Code("TREAT", "treating patients"),
    Code("CLINTRL", "care within a clinical trial", "TREAT"),
    Code("COC", "coordinating care", "TREAT"),
    Code("ETREAT", "emergency treatment", "TREAT"),
    Code("BTG", "breaking the glass in an emergency", "ETREAT"),
    Code("ERTREAT", "emergency room treatment", "ETREAT"),
    Code("POPHLTH", "population health", "TREAT"),
    Code("TREATDS", "supporting a treatment decision", "TREAT"),
)
"""HL7 v3 ActReason, the concepts below PurposeOfUse (terminology.hl7.org, CC0)."""

DUO_TERMS = _table(
    Code("DUO:0000004", "no restriction"),
    Code("DUO:0000042", "general research use"),
    Code("DUO:0000006", "health, medical or biomedical research"),
    Code("DUO:0000007", "research into named diseases"),
    Code("DUO:0000011", "research into population origins or ancestry only"),
    Code("DUO:0000012", "restricted to named kinds of research"),
    Code("DUO:0000015", "no research into general methods"),
    Code("DUO:0000016", "genetic studies only"),
    Code("DUO:0000018", "non-profit organisations and non-commercial use only"),
    Code("DUO:0000019", "results must be published"),
    Code("DUO:0000020", "collaboration with the source is required"),
    Code("DUO:0000021", "ethics approval is required"),
    Code("DUO:0000022", "restricted to a region"),
    Code("DUO:0000024", "no publication before a date"),
    Code("DUO:0000025", "use is limited in time"),
    Code("DUO:0000026", "restricted to named users"),
    Code("DUO:0000027", "restricted to a named project"),
    Code("DUO:0000028", "restricted to named institutions"),
    Code("DUO:0000029", "derived data must be returned"),
    Code("DUO:0000043", "clinical care"),
    Code("DUO:0000044", "no research into population origins or ancestry"),
    Code("DUO:0000045", "non-profit organisations only"),
    Code("DUO:0000046", "non-commercial use only"),
)
"""The GA4GH Data Use Ontology (github.com/EBISPOT/DUO)."""

DATA_CATEGORIES = _table(
    Code("ehr", "electronic health records"),
    Code("health-factors", "what affects health"),
    Code("healthcare-resources", "needs, resources, access and money in care"),
    Code("pathogen-data", "data on pathogens"),
    Code("admin-claims", "administration and claims"),
    Code("human-genomic", "human genetic and genomic data"),
    Code("molecular-omics", "other molecular data"),
    Code("device-generated-personal", "personal data from devices"),
    Code("wellness-apps", "data from wellness applications"),
    Code("professional-status", "status of health professionals"),
    Code("public-health-registry", "population-based public health registries"),
    Code("medical-mortality-registry", "medical and mortality registries"),
    Code("clinical-trial", "clinical trials and studies"),
    Code("medical-device-other", "other data from medical devices"),
    Code("medicinal-device-registry", "registries of medicines and devices"),
    Code("research-cohort-survey", "research cohorts and surveys"),
    Code("biobank", "biobanks"),
)
"""Article 51(1) of the EHDS Regulation, short names as in the HL7 Austria draft value set."""

EHDS_CODES = EHDS_PURPOSES | EHDS_PROHIBITED


def with_ancestors(table: Mapping[str, Code], code: str) -> tuple[str, ...]:
    """Return the code and every code above it, nearest first."""
    parent = table[code].parent
    return (code, *with_ancestors(table, parent)) if parent else (code,)


def nearest(word: str, known: Mapping[str, object]) -> str:
    """Return "; did you mean ...?" for the known word closest to `word`, or nothing."""
    by_folded_name = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), by_folded_name, n=1, cutoff=0.5)
    return f"; did you mean {by_folded_name[close[0]]}?" if close else ""


def require(table: Mapping[str, Code], what: str, code: str) -> str:
    """Return the code if the table has it. Raises ValueError that names the nearest one."""
    if code not in table:
        raise ValueError(f"{code!r} is not {what}{nearest(code, table)}")
    return code
