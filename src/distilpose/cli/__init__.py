"""How every command starts and ends: composing the configuration, messages, processes."""
