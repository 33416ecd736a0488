"""The start of every command: it composes and validates its configuration, and prints user errors as one sentence."""
