"""Telling a running job to change its plan, through files in its folder."""
