"""The private sum: countries learn a noisy sum together, and nobody learns a part of it."""
