"""Membership: invitations, enrolment, certificates, revocations."""
