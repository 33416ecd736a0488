"""Diagnosis of a trained student: its errors, and what it learned from its teacher."""
