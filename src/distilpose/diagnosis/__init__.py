"""Diagnosis of a trained student: what its teacher taught it, and which errors remain."""
