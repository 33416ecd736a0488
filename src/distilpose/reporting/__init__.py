"""Reports over finished runs: reading values, tables, text and figures."""
