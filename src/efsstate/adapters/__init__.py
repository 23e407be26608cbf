"""Adapters that put efsstate below other frameworks' own interfaces; each imports its framework."""
