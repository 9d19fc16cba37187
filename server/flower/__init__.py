"""Flower as a carrier: SuperLink processes, bundles, messages."""
