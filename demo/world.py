"""The world of a demo: countries with their files on disk, and the documents they will sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template

from protocols.tasks import Feature, TrainGlm

DOCUMENTS = Path(__file__).parent / "documents"


@dataclass(frozen=True)
class Site:
    """A country: its authority and its files. No node ever reads `newcomers`."""

    country: str
    authority: str
    records: Path
    dictionary: Path
    newcomers: Path
    opted_out: Path | None = None


@dataclass(frozen=True)
class Terms:
    """The parts of the agreement that differ between the worlds."""

    federation: str
    title: str
    register: str
    delta: float
    order: int
    budget_epsilon: float
    smallest_cohort: int
    cohort_epsilon: float
    youngest: int
    honest: int = 3
    smallest_countries: int = 4


@dataclass(frozen=True)
class World:
    """Everything that exists before the first command."""

    folder: Path
    about: str
    sites: Sequence[Site]
    terms: Terms
    training: str
    histogram: str
    features: Sequence[Feature]
    task: TrainGlm

    @property
    def countries(self) -> tuple[str, ...]:
        """Codes of the countries, sorted."""
        return tuple(sorted(site.country for site in self.sites))


def write_documents(world: World, now: datetime) -> Path:
    """Write agreement.yaml and the studies, with dates relative to `now`; return their folder."""
    folder = world.folder / "documents"
    folder.mkdir()
    values = _values(world, now)
    for name in ("agreement", world.training, world.histogram, "insurance-premiums"):
        source = Template((DOCUMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
        target = name.removeprefix("hospital-")
        (folder / f"{target}.yaml").write_text(source.substitute(values), encoding="utf-8")
    return folder


def _values(world: World, now: datetime) -> Mapping[str, object]:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"effective": -1, "renewal": 330, "sunset": 365, "expires": 90}
    dates = {name: _date(today + timedelta(days=count)) for name, count in days.items()}
    parties = "\n".join(_party(site) for site in world.sites)
    countries = ", ".join(world.countries)
    return vars(world.terms) | dates | {"parties": parties, "countries": countries}


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def _party(site: Site) -> str:
    return f'  - country: {site.country}\n    authority: "{site.authority}"'
