"""Who may connect: invitations, certificates, revocations."""
