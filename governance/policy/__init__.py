"""Whether a study may run: Cedar policies over documents, one decision point, plain reasons."""
