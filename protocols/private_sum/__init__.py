"""The private sum: the coordinator learns a noisy sum, and nothing about one country's part."""
