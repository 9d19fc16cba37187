"""The sources of a node's records, and the selection of a study's patients."""
