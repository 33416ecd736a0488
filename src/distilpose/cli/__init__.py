"""How every command starts: it composes and validates its configuration, and prints mistakes as one sentence."""
