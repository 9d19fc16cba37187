"""What a study with `by_country` shows of each country, in the words that its officers read.

The base policy decides whether it is allowed: `agreement/by-country` and `permit/by-country`.
"""

from governance.documents.study import Study

OWN_SUM_VISIBLE = "your country's own sum is visible, with noise only"
FILLED_IN = "filled in by each node with its own country; not from records"


def names_countries(study: Study) -> tuple[str, ...]:
    """Return the features from records of which two or more values are countries of the study.

    Sums by such a feature show each country's own part without `by_country`, if the countries
    record it. Other features that differ between countries are not found.
    """
    if study.task.by_country:
        return ()
    asked = set(study.countries)
    return tuple(f.name for f in study.features if len(asked.intersection(f.levels)) > 1)


def own_sum_in_words(study: Study) -> str:
    """Return what the study shows of the officer's country; empty without `by_country`."""
    if not study.task.by_country:
        return ""
    return (
        f"{OWN_SUM_VISIBLE}: a part of each sum is by country (by_country), with the patients of "
        "one country in it, and noise. Each patient has the same ε and δ as without; but what is "
        "true of your country's patients together is not hidden among the others"
    )
