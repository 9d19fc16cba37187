"""What holds for every test: Hypothesis sets no deadline, because other work shares the machine."""

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
