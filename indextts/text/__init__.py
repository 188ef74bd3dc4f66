"""Text front end: glossary, normalisation, tokens and segments (spec 4). Imports no torch."""
