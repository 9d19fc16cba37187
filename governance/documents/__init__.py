"""Governance documents as frozen values: agreement, study, permit and their kin."""

from governance.documents.agreement import Agreement
from governance.documents.models import Document
from governance.documents.permit import NodeKeys, Permit, Withdrawal
from governance.documents.study import Study

__all__ = ["Agreement", "Document", "NodeKeys", "Permit", "Study", "Withdrawal"]
