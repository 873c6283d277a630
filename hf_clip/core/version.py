"""The version, where building a wheel reads it without torch."""

__version__ = "0.1.0"
