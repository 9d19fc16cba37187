"""A federation's documents: every party's keys, a signed agreement, a repository, officers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, TargetFile, Targets

from governance.documents.agreement import Agreement, CohortCount
from governance.documents.permit import NodeKeys, Permit, PermitConditions, Withdrawal
from governance.documents.study import Study
from governance.trust.ceremony import Draft, sign_draft
from governance.trust.layout import signed_field, signer
from governance.trust.repository import Repository
from governance.trust.signing import OfficerDocuments
from governance.trust.state import PublishedState, target_name
from governance.trust.view import TrustedView, TrustHighWater
from keys.composite import CompositeSigningKey
from keys.identity import SigningKey
from protocols.numerics.mechanism import Mechanism
from protocols.tasks.schedule import COHORT_FLOOR
from tests.support.prepared import PREPARED, look, put

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
COUNTRIES = ("DK", "EE", "NO", "PT")
SLASHED = "sha256:" + "0" * 64


BOTH: dict[str, Any] = {"signatures": "ed25519+mldsa65"}
"""Changes to an agreement by which messages need both signatures."""


def raw_key(number: int) -> SigningKey:
    return SigningKey.from_bytes(number.to_bytes(32, "big"))


def two_algorithm_key(number: int) -> CompositeSigningKey:
    """Return the key whose Ed25519 half is `raw_key(number)`."""
    return CompositeSigningKey.from_bytes(2 * number.to_bytes(32, "big"))


def agreement_fields(countries: tuple[str, ...] = COUNTRIES, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": "nordic-heart",
        "title": "Heart disease across four countries",
        "federation": "nordic-heart",
        "parties": [
            {
                "country": country,
                "authority": f"Health data authority of {country}",
                "officer_key": raw_key(100 + n).public.to_text(),
            }
            for n, country in enumerate(countries)
        ],
        "coordinator": {
            "name": "Regional institute",
            "identity_key": raw_key(1).public.to_text(),
            "document_key": raw_key(2).public.to_text(),
            "online_key": raw_key(3).public.to_text(),
        },
        "purposes": {
            "allowed": [
                {"ehds": "53-1-e", "purpose_of_use": ["HRESCH", "MLTRAINING"]},
                {"ehds": "53-1-a", "purpose_of_use": ["PUBHLTH"]},
            ],
            "forbidden": [
                {
                    "purpose_of_use": "HMARKT",
                    "clause": "Article 4(2)",
                    "sentence": "No data of this federation serves marketing.",
                }
            ],
        },
        "data_categories": ["ehr", "medical-mortality-registry"],
        "task_kinds": ["train/glm", "stats/count", "stats/histogram"],
        "budget": [
            {
                "register": "patients",
                "period_days": 365,
                "epsilon": 3.0,
                "delta": 1e-4,
                "order": 8,
            }
        ],
        "colluding": 1,
        "honest": 2,
        "smallest_countries": 3,
        "smallest_cohort": 50,
        "cohort_count": {"epsilon": 1.0, "delta": 1e-5},
        "retention": {"results_days": 3650, "logs_days": 3650},
        "amendment_threshold": 3,
        "effective": "2026-01-01",
        "sunset": "2028-01-01",
        "renewal": "2027-06-01",
    }
    if changes.get("signatures") == BOTH["signatures"]:
        fields["coordinator"]["identity_key"] = two_algorithm_key(1).public.to_text()
    return fields | changes


def agreement(countries: tuple[str, ...] = COUNTRIES, **changes: Any) -> Agreement:
    return Agreement.model_validate(agreement_fields(countries, **changes))


def study_fields(agreed: Agreement, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": "heart-by-sex",
        "title": "Heart disease by sex",
        "question": "How many patients have heart disease, by sex?",
        "agreement": agreed.digest,
        "purpose": {
            "ehds": "53-1-e",
            "purpose_of_use": "DSRCH",
            "duo": ["DUO:0000007"],
            "sentence": "To plan a larger study of heart disease.",
        },
        "legal_basis": "GDPR Art. 6(1)(e) and 9(2)(j)",
        "population": {
            "register": "patients",
            "where": [{"feature": "age", "at_least": 40}],
        },
        "data_categories": ["ehr"],
        "countries": list(COUNTRIES),
        "features": [
            {"name": "age", "type": "numeric", "bounds": [0, 120]},
            {"name": "sex", "type": "categorical", "levels": ["female", "male"]},
            {"name": "disease", "type": "boolean"},
        ],
        "task": {
            "kind": "stats/histogram",
            "of": {"feature": "disease"},
            "strata": [{"feature": "sex"}],
            "patients_bound": 10_000,
        },
        "privacy": {"epsilon": 0.5, "delta": 1e-5},
        "recipients": ["Regional institute"],
        "release": {"what": "table", "keep_days": 365, "audience": "the public"},
        "created": "2026-08-20",
        "expires": "2026-12-31",
    }
    return fields | changes


def training_fields(rounds: int, **task: Any) -> dict[str, Any]:
    """Return the fields of a study that trains a small model; `task` changes its task."""
    fields: dict[str, Any] = {
        "kind": "train/glm",
        "family": "logistic",
        "target": "disease",
        "rounds": rounds,
        "sampling_rate": 0.5,
        "learning_rate": 1.0,
        "patients": 320,
        "patients_bound": 10_000,
        "evaluation": None,
    }
    return {
        "title": "Who has heart disease?",
        "population": {"register": "patients"},
        "task": fields | task,
        "release": {"what": "model", "keep_days": 365, "audience": "the public"},
    }


COHORT_NOISE = CohortCount(epsilon=1.0, delta=1e-5).noise_std
"""The noise of a cohort's count under `agreement()`, in lattice units."""


def with_schedule(study: Study, noise_std: int = 3_000, cohort_noise: int = COHORT_NOISE) -> Study:
    """Fill in the schedule with generous noise, without calibrating it."""

    def filled(template: Mechanism) -> Mechanism:
        noise = cohort_noise if template.phase == COHORT_FLOOR else noise_std
        return template.model_copy(update={"noise_std": noise}) if template.costs else template

    return study.with_mechanisms(tuple(map(filled, study.schedule())))


def study(agreed: Agreement, **changes: Any) -> Study:
    return with_schedule(Study.model_validate(study_fields(agreed, **changes)))


def permit(agreed: Agreement, asked: Study, country: str = "DK", **changes: Any) -> Permit:
    fields: dict[str, Any] = {
        "country": country,
        "study": asked.digest,
        "agreement": agreed.digest,
        "conditions": PermitConditions(expires=NOW + 60 * DAY),
        "approved_by": "A. Officer",
        "sentence": "In the interest of our patients.",
        "issued": NOW,
    }
    return Permit.model_validate(fields | changes)


def withdrawal(asked: Study, country: str = "DK") -> Withdrawal:
    return Withdrawal(
        country=country, study=asked.digest, reason="New advice of the board.", issued=NOW
    )


def node_keys(country: str, number: int = 0, *, both: bool = False) -> NodeKeys:
    base = 1_000 + number + 10 * COUNTRIES.index(country)
    identity = two_algorithm_key(base) if both else raw_key(base)
    return NodeKeys(
        country=country,
        identity_key=identity.public.to_text(),
        log_key=raw_key(base + 1).public.to_text(),
        log_origin=f"nordic-heart/{country.lower()}",
        node_auth="ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ=",
    )


@dataclass
class FederationDocuments:
    """A repository for an agreement and its documents, and an officer for each country."""

    home: Path
    agreed: Agreement = field(default_factory=agreement)
    now: datetime = NOW
    officers: dict[str, SigningKey] = field(default_factory=dict)
    folders: dict[str, OfficerDocuments] = field(default_factory=dict)
    document_key: SigningKey = field(default_factory=lambda: raw_key(2))
    online_key: SigningKey = field(default_factory=lambda: raw_key(3))

    def __post_init__(self) -> None:
        self.store = Repository(self.home / "store")
        for n, country in enumerate(COUNTRIES):
            self.officers[country] = raw_key(100 + n)
            self.folders[country] = OfficerDocuments(self.home / country, country)

    def sign(self, *countries: str, draft: bytes | None = None) -> None:
        data = draft or self.store.current_draft()
        assert data is not None
        read = Draft.from_canonical(data)
        previous = self.store.read(f"metadata/{read.version - 1}.root.json")
        for country in countries:
            key = self.officers[country]
            signed = sign_draft(read, key, previous_root=previous, now=self.now)
            self.store.add_signatures(signed)

    def publish(self) -> None:
        self.store.publish(self.now, document_key=self.document_key, online_key=self.online_key)

    def publish_agreement(self) -> "FederationDocuments":
        """Publish the signed agreement; one process signs the same agreement only once."""
        folder, works = self.home / "store", ("begun", self.signers)
        kept = PREPARED.find(works) if PREPARED.usable and not look(folder) else None
        if kept is not None:
            put(kept, folder)
            return self
        self.store.draft(self.agreed, self.now)
        self.sign("DK", "EE", "NO")
        self.publish()
        if PREPARED.usable:
            PREPARED.keep(works, folder, self.now, ())
        return self

    @property
    def signers(self) -> str:
        """Everything that decides what a signature made now looks like, as text."""
        keys = (*self.officers.values(), self.document_key, self.online_key)
        return " ".join((self.agreed.digest, str(self.now), *(k.public.to_text() for k in keys)))

    def sign_and_submit(self, country: str) -> bytes:
        """Sign a country's documents and submit them to the repository."""
        bundle = self.folders[country].sign(self.now, self.officers[country])
        self.store.accept_country(bundle, self.now, online_key=self.online_key)
        return bundle

    def propose(self, asked: Study) -> None:
        self.store.add_study(
            asked, self.now, document_key=self.document_key, online_key=self.online_key
        )

    def refresh(self) -> None:
        self.store.refresh(self.now, online_key=self.online_key)

    @property
    def pinned(self) -> bytes:
        root = self.store.read("metadata/1.root.json")
        assert root is not None
        return root

    def view(self, floor: TrustHighWater | None = None) -> TrustedView:
        return TrustedView.load(self.store.read, self.pinned, self.now, floor or TrustHighWater())

    def snapshot_of_store(self) -> Mapping[str, bytes]:
        """Return every published file, to show an older state later."""
        public = self.home / "store" / "public"
        return {
            str(path.relative_to(public)): path.read_bytes()
            for path in sorted(public.rglob("*"))
            if path.is_file()
        }


class LyingCoordinator:
    """A coordinator that follows no rule: it shows anything that its keys can sign.

    It begins with the files of the repository, and signs snapshot and timestamp over any others.
    """

    def __init__(
        self, documents: FederationDocuments, online_key: SigningKey | None = None
    ) -> None:
        self.documents = documents
        self.online_key = online_key or documents.online_key
        self.files: dict[str, bytes] = dict(documents.snapshot_of_store())

    def show(self, name: str) -> bytes | None:
        return self.files.get(name)

    def put(self, role: str, metadata: bytes, contents: Mapping[str, bytes] | None = None) -> None:
        """Show other metadata of the role, with fresh snapshot and timestamp."""
        state = self._state().with_role(role, metadata)
        self.files |= dict(contents or {})
        self.files |= state.role_files(role)
        self.files |= state.snapshot_and_timestamp(self.documents.now, self.online_key, force=True)

    def hide(self, role: str) -> None:
        """Leave the role out of a fresh snapshot."""
        state = self._state()
        fewer = replace(state, roles={n: d for n, d in state.roles.items() if n != role})
        self.files |= fewer.snapshot_and_timestamp(self.documents.now, self.online_key, force=True)

    def date(self, moment: datetime) -> None:
        """Sign snapshot and timestamp as of another moment."""
        self.files |= self._state().snapshot_and_timestamp(moment, self.online_key, force=True)

    def _state(self) -> PublishedState:
        state = PublishedState.read(self.files.get)
        assert state is not None
        return state

    def view(self, floor: TrustHighWater | None = None, now: datetime | None = None) -> TrustedView:
        return TrustedView.load(
            self.show, self.documents.pinned, now or self.documents.now, floor or TrustHighWater()
        )


def country_metadata(
    key: SigningKey,
    targets: Mapping[str, bytes],
    *,
    version: int = 1,
    born: datetime = NOW,
    life: timedelta = 7 * DAY,
) -> tuple[bytes, dict[str, bytes]]:
    """Return metadata of a role, signed by any key, and the files of its targets."""
    listed = {path: TargetFile.from_data(path, data) for path, data in targets.items()}
    signed = Targets(
        version=version,
        expires=born + life,
        targets=listed,
        unrecognized_fields=signed_field(born),
    )
    metadata = Metadata(signed)
    metadata.sign(signer(key))
    files = {target_name(target): targets[path] for path, target in listed.items()}
    return metadata.to_bytes(), files
