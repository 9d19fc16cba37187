"""Which countries gave a model with `by_country` a baseline, and what it uses for any other."""

from collections.abc import Collection, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from protocols.tasks import Task, TrainGlm, Training
from protocols.tasks.by_country import COUNTRY
from protocols.tasks.features import Feature

CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


class CountryBaselines(BaseModel):
    """The countries that trained the model, and the rule for a country that did not.

    The rule is the mean of the model's outputs with each of these countries, before the link
    function. For a linear model that is the mean of their intercepts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    countries: Annotated[tuple[CountryCode, ...], Field(min_length=1, max_length=256)]
    otherwise: Literal["mean-of-countries"] = "mean-of-countries"

    def rule(self, task: Task) -> str:
        """Return what the model uses for a country that is not among these."""
        what = "intercepts" if isinstance(task, TrainGlm) else "outputs, before the link function,"
        return f"the mean of the {what} of {', '.join(self.countries)}"

    def sentence(self, task: Task, features: Sequence[Feature]) -> str:
        """Return the rule in a sentence, with the study's countries to which it applies as well."""
        absent = [name for name in _levels(features) if name not in self.countries]
        left_out = (
            f" {', '.join(absent)} took part in no round of training, and counts as such a country."
            if absent
            else ""
        )
        return (
            f"For a country that was not in this study the model uses {self.rule(task)}.{left_out}"
        )


def baselines_of(
    task: Task, features: Sequence[Feature], untrained: Collection[str]
) -> CountryBaselines | None:
    """Return the baselines of a model that all but the `untrained` countries of its study trained.

    None if the country is not among its inputs, by `by_country`. If no round was opened, all
    baselines are still those that training started from.
    """
    if not _has_baselines(task, features):
        return None
    countries = _levels(features)
    trained = tuple(country for country in countries if country not in untrained)
    return CountryBaselines(countries=trained or countries)


def baselines_problem(
    task: Task, features: Sequence[Feature], baselines: CountryBaselines | None
) -> str:
    """Return why a result cannot have these baselines; empty if it can."""
    if _has_baselines(task, features) is not (baselines is not None):
        return "baselines: a model has them exactly if by_country gives it the input country"
    if baselines is None:
        return ""
    levels = _levels(features)
    unknown = [country for country in baselines.countries if country not in levels]
    return f"baselines: the feature country has no level {', '.join(unknown)}" if unknown else ""


def _has_baselines(task: Task, features: Sequence[Feature]) -> bool:
    if not isinstance(task, Training) or not task.by_country:
        return False
    names = task.inputs or tuple(feature.name for feature in features)
    return COUNTRY in names


def _levels(features: Sequence[Feature]) -> tuple[str, ...]:
    return next((f.levels for f in features if f.name == COUNTRY), ())
