"""Errors of documents, of the privacy ledger and of the audit log."""

from keys.errors import PratiqueError


class DocumentFault(PratiqueError):
    """A governance document cannot be read, trusted or used."""


class FileFault(DocumentFault):
    """A file of this machine cannot be written: only its own operator may read which one."""


class LedgerFault(PratiqueError):
    """An entry of the privacy ledger cannot be added or found."""


class LogFault(PratiqueError):
    """The audit log cannot be appended to, or does not verify."""


class ResultFault(PratiqueError):
    """A released result cannot be read, or cannot be trusted."""


class StorageFault(PratiqueError):
    """A state database cannot be opened, read or written."""
