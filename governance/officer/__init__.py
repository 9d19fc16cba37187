"""The officer's commands: signing, inbox, approval, refusal, log verification, and the agent."""
