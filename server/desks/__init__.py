"""What the daemon does for the commands on its machine, by topic; private keys stay here."""
