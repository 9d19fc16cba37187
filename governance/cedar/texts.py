"""The Cedar texts that come with the package: the base policy and the schema."""

from importlib.resources import files

BASE_POLICY = files(__package__).joinpath("base.cedar").read_text(encoding="utf-8")
SCHEMA = files(__package__).joinpath("schema.cedarschema").read_text(encoding="utf-8")
