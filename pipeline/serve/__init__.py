"""Consumers of the alert stream: the alert archive, its HTTP face, and the filtering service."""
