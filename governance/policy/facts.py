"""The facts of a policy request: as a Cedar context, and as words for the reasons."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from governance.documents.agreement import Agreement
from governance.documents.permit import Permit, Withdrawal
from governance.documents.purposes import EHDS_CODES, PURPOSE_OF_USE, with_ancestors
from governance.documents.study import Study
from governance.runtime.safe_text import quoted
from governance.runtime.wording import exact, percent, rounded_up
from protocols.tasks.schedule import INTEGER_SCALE

MICRO, PICO = Decimal(10**6), Decimal(10**12)
LARGEST = 2**62
"""Replaces every larger amount, because Cedar's whole numbers end at 2^63 - 1."""
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Charge:
    """What the study costs one register: RDP in millionths at `order`, and ε at δ by PLD.

    `cap_micro` is the RDP that a period may spend, `left_micro` what is left of it.
    """

    register: str
    order: int
    micro: int
    cap_micro: int
    left_micro: int
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Facts:
    """Everything on which a decision about one country depends."""

    study: Study
    agreement: Agreement
    country: str
    now: datetime
    permit: Permit | None
    withdrawal: Withdrawal | None
    installed_tasks: Collection[str]
    charge: Charge | None
    owed_micro: int

    def context(self) -> dict[str, Any]:
        """Return the Cedar context; `schema.cedarschema` says what each attribute is."""
        charge = self.charge
        return {
            "now": seconds(self.now),
            "country": self.country,
            "agreement": self._agreement(),
            "study": self._study(),
            "permit": self._permit(),
            "withdrawn": self.withdrawal is not None,
            "charge": {
                "micro": min(self.owed_micro, LARGEST),
                "left_micro": min(charge.left_micro, LARGEST) if charge else 0,
            },
            "installed_tasks": sorted(self.installed_tasks),
        }

    def _agreement(self) -> dict[str, Any]:
        agreement = self.agreement
        budget = agreement.register_budget(self.study.population.register_name)
        return {
            "digest": agreement.digest,
            "effective": seconds(agreement.effective),
            "sunset": seconds(agreement.sunset),
            "parties": list(agreement.countries),
            "purposes": _allowed(agreement),
            "forbidden": [rule.code for rule in agreement.purposes.forbidden],
            "data_categories": list(agreement.data_categories),
            "task_kinds": list(agreement.task_kinds),
            "registers": [budget.register_name for budget in agreement.budget],
            "delta_pico": pico_floor(budget.delta) if budget else 0,
            "smallest_countries": agreement.smallest_countries,
            "results_days": agreement.retention.results_days,
            "by_country": agreement.by_country,
        }

    def _study(self) -> dict[str, Any]:
        study, purpose = self.study, self.study.purpose
        ehds = with_ancestors(EHDS_CODES, purpose.ehds)
        uses = with_ancestors(PURPOSE_OF_USE, purpose.purpose_of_use)
        return {
            "digest": study.digest,
            "agreement": study.agreement,
            "ehds": list(ehds),
            "purpose_of_use": list(uses),
            "purposes": [f"{code}/{use}" for code in ehds for use in uses],
            "duo": list(purpose.duo),
            "data_categories": list(study.data_categories),
            "task": study.task.kind,
            "countries": list(study.countries),
            "country_count": len(study.countries),
            "features": list(study.features_used),
            "by_country": study.task.by_country,
            "register": study.population.register_name,
            "epsilon_micro": micro_floor(study.privacy.epsilon),
            "loss_micro": micro_ceiling(self.charge.epsilon) if self.charge else 0,
            "delta_pico": pico_ceiling(study.privacy.delta),
            "priced": study.schedule_matches_task,
            "cohort_noise_fits": self._cohort_noise_fits(),
            "recipients": list(study.recipients),
            "release": study.release.what.value,
            "keep_days": study.release.keep_days,
            "expires": seconds(study.expires),
        }

    def _cohort_noise_fits(self) -> bool:
        """Whether the cohort's count has the noise that the agreement states, if it states one.

        `study/not-priced` refuses a study without a count.
        """
        count, stated = self.study.cohort_count, self.agreement.cohort_count
        return count is None or stated is None or count.noise_std == stated.noise_std

    def _cohort_words(self) -> dict[str, str]:
        count, stated = self.study.cohort_count, self.agreement.cohort_count
        return {
            "cohort_noise": _patients(count.noise_std) if count else NOT_STATED,
            "cohort_noise_stated": _patients(stated.noise_std) if stated else NOT_STATED,
        }

    def _permit(self) -> dict[str, Any]:
        if self.permit is None:
            return _NO_PERMIT
        conditions = self.permit.conditions
        named = conditions.features
        at_most = conditions.epsilon_at_most
        return {
            "present": True,
            "country": self.permit.country,
            "study": self.permit.study,
            "agreement": self.permit.agreement,
            "features": list(self.study.features_used if named is None else named),
            "epsilon_micro": LARGEST if at_most is None else micro_floor(at_most),
            "by_country": conditions.by_country,
            "expires": seconds(conditions.expires),
        }

    def words(self) -> dict[str, str]:
        """Return the facts as text, by the $names that the policies use in their reasons."""
        return {
            **self._agreement_words(),
            **self._study_words(),
            **self._cohort_words(),
            **self._permit_words(),
            **self._charge_words(),
        }

    def _agreement_words(self) -> dict[str, str]:
        agreement, study = self.agreement, self.study
        purpose = study.purpose
        rule = agreement.forbidding(purpose.ehds, purpose.purpose_of_use)
        return {
            "agreement": agreement.digest,
            "effective": day(agreement.effective),
            "sunset": day(agreement.sunset),
            "parties": listed(agreement.countries),
            "strangers": listed(sorted({*study.countries} - {*agreement.countries})),
            "smallest_countries": str(agreement.smallest_countries),
            "forbidden_clause": quoted(rule.clause) if rule else NOT_STATED,
            "forbidden_sentence": quoted(rule.sentence) if rule else NOT_STATED,
            "purposes": listed(_allowed(agreement)),
            "categories": listed(agreement.data_categories),
            "other_categories": listed(
                sorted({*study.data_categories} - {*agreement.data_categories})
            ),
            "task_kinds": listed(agreement.task_kinds),
            "registers": listed(budget.register_name for budget in agreement.budget),
            "results_days": str(agreement.retention.results_days),
        }

    def _study_words(self) -> dict[str, str]:
        study = self.study
        return {
            "country": self.country,
            "study": study.digest,
            "study_expires": day(study.expires),
            "asked": str(len(study.countries)),
            "ehds": study.purpose.ehds,
            "ehds_sentence": EHDS_CODES[study.purpose.ehds].sentence,
            "purpose_of_use": study.purpose.purpose_of_use,
            "task": study.task.kind,
            "epsilon": exact(study.privacy.epsilon),
            "delta": exact(study.privacy.delta),
            "register": study.population.register_name,
            "keep_days": str(study.release.keep_days),
        }

    def _permit_words(self) -> dict[str, str]:
        conditions = self.permit.conditions if self.permit else None
        permitted = (conditions.features if conditions else None) or ()
        at_most = conditions.epsilon_at_most if conditions else None
        return {
            "withdrawal_reason": quoted(self.withdrawal.reason) if self.withdrawal else NOT_STATED,
            "permit_country": self.permit.country if self.permit else NOT_STATED,
            "permit_expires": day(conditions.expires) if conditions else NOT_STATED,
            "unpermitted": listed(sorted({*self.study.features_used} - {*permitted})),
            "permit_epsilon": NOT_STATED if at_most is None else exact(at_most),
        }

    def _charge_words(self) -> dict[str, str]:
        charge = self.charge
        budget = self.agreement.register_budget(self.study.population.register_name)
        cap = charge.cap_micro if charge else 0
        return {
            "agreement_delta": exact(budget.delta) if budget else NOT_STATED,
            "loss": rounded_up(charge.epsilon) if charge else NOT_STATED,
            "charge_share": share_of(self.owed_micro, cap),
            "left_share": share_of(charge.left_micro, cap) if charge else NOT_STATED,
        }


_NO_PERMIT: dict[str, Any] = {
    "present": False,
    "country": "",
    "study": "",
    "agreement": "",
    "features": [],
    "epsilon_micro": 0,
    "by_country": False,
    "expires": 0,
}


def _allowed(agreement: Agreement) -> list[str]:
    allowed = agreement.purposes.allowed
    return [f"{entry.ehds}/{use}" for entry in allowed for use in entry.purpose_of_use]


def _patients(noise_std: int) -> str:
    """Return the standard deviation of a count's noise in patients."""
    return f"{noise_std / INTEGER_SCALE:.3g}"


def micro_floor(amount: float) -> int:
    """Return millionths of a promise or limit, rounded down."""
    return _scaled(amount, MICRO, ROUND_FLOOR)


def micro_ceiling(amount: float) -> int:
    """Return millionths of a loss, rounded up."""
    return _scaled(amount, MICRO, ROUND_CEILING)


def pico_floor(amount: float) -> int:
    """Return 10^-12ths of a limit on δ, rounded down."""
    return _scaled(amount, PICO, ROUND_FLOOR)


def pico_ceiling(amount: float) -> int:
    """Return 10^-12ths of a δ, rounded up."""
    return _scaled(amount, PICO, ROUND_CEILING)


def _scaled(amount: float, unit: Decimal, rounding: str) -> int:
    exact = Decimal(repr(amount))
    if not exact.is_finite() or exact * unit > LARGEST:
        return LARGEST
    return int((exact * unit).to_integral_value(rounding))


def seconds(moment: datetime) -> int:
    """Return whole seconds since 1970."""
    return int(moment.timestamp())


def day(moment: datetime) -> str:
    """Return the date and time in UTC, with seconds unless they are zero."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment.second else f"{moment:%Y-%m-%d %H:%M} UTC"


def share_of(part: int, whole: int) -> str:
    """Return a part of the whole in per cent; a whole of 0 was not stated."""
    return percent(part, whole) if whole else NOT_STATED


def listed(names: Iterable[str]) -> str:
    """Return names separated by commas, or `none`."""
    return ", ".join(names) or "none"
