"""The `hf-clip` command: one small file a sub-command; each parses, calls and prints."""
