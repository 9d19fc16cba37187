"""Integers, noise and rounding behind a private sum."""
