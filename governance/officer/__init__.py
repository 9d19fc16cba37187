"""The officer at the keyboard: signing, inbox, approval, refusal, log reading."""
