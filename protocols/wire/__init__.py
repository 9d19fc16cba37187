"""Communication between parties: channel, invitations, signed messages, canonical encoding."""
