"""How parties talk: channel, invitations, signed messages, canonical encoding."""
